/* Semihosting: a breakpoint by which the emulator, or a debugger, does what the program asks. */
#include "firmware.h"

#define WRITE_TEXT 0x04
#define EXIT_WITH_CODE 0x20
#define APPLICATION_EXIT 0x20026u

static void ask(uint32_t what, const void *argument) {
  register uint32_t r0 __asm("r0") = what;
  register const void *r1 __asm("r1") = argument;
  __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void firmware_write(const char *text) { ask(WRITE_TEXT, text); }

void firmware_report(const char *name, uint32_t number) {
  char digits[12] = {0};
  int place = 10;
  digits[place] = '\n';
  do {
    digits[--place] = (char)('0' + number % 10u);
    number /= 10u;
  } while (number);
  firmware_write("@");
  firmware_write(name);
  firmware_write(" ");
  firmware_write(digits + place);
}

void firmware_exit(int code) {
  const uint32_t reason[2] = {APPLICATION_EXIT, (uint32_t)code};
  ask(EXIT_WITH_CODE, reason);
  for (;;) {
  }
}
