/* What a program in the emulator may ask for: text on the host, and how costly a call is. */
#ifndef FEDSYS_FIRMWARE_H
#define FEDSYS_FIRMWARE_H

#include <stdint.h>

/* Writes text on the host. Nothing is written without a host that listens (semihosting). */
void firmware_write(const char *text);

/* Writes "@name number" on a line of its own: what edge/verification/toolchain.py reads. */
void firmware_report(const char *name, uint32_t number);

/* Ends the emulation with this exit code. */
void firmware_exit(int code);

/* Calls it twice; reports the clock's ticks of the first call, those of calls that do nothing and
   of known instructions (for the scale), and the bytes of stack that the second call used. */
void firmware_measure(void (*call)(void));

#endif
