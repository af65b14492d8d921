/* How many instructions and how much stack a call needs.

   The emulator's clock goes on by the same time with every instruction (-icount), so the core's
   own timer counts instructions once its ticks for known ones are known. */
#include "firmware.h"

#define TIMER_CONTROL (*(volatile uint32_t *)0xE000E010u)
#define TIMER_RELOAD (*(volatile uint32_t *)0xE000E014u)
#define TIMER_VALUE (*(volatile uint32_t *)0xE000E018u)
#define TIMER_PERIOD 0x1000000u
#define TIMER_ON 7u /* counts, interrupts, by the core's clock */

#define PAINT 0xC5A3960Fu
#define PAINTED_WORDS 16384
#define SPARED_WORDS 32 /* more than the frame of `depth` itself */

extern uint32_t firmware_stack_floor[];

void firmware_tick(void);

static volatile uint32_t wraps;

void firmware_tick(void) { wraps++; }

static void nothing(void) {}

/* 65536 rounds of 16 instructions: 14 that do nothing, one that counts and one that goes back. */
#define KNOWN_INSTRUCTIONS 1048576u
static void known(void) {
  uint32_t rounds = 65536u;
  __asm volatile(
      ".balign 4\n"
      "1: nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n"
      ".syntax unified\n"
      "subs %0, #1\n"
      "bne 1b\n"
      : "+l"(rounds)
      :
      : "cc");
}

static uint64_t now(void) {
  uint32_t before, value;
  do {
    before = wraps;
    value = TIMER_VALUE;
  } while (before != wraps);
  return (uint64_t)before * TIMER_PERIOD + (TIMER_PERIOD - 1u - value);
}

static uint64_t ticks(void (*call)(void)) {
  const uint64_t start = now();
  call();
  return now() - start;
}

static void touch(void) { __asm volatile("push {r0}\n pop {r0}" ::: "memory"); }

/* Keeps what it calls clear of the words above the paint. */
static __attribute__((noinline)) void deep(void (*call)(void)) {
  uint32_t room[4 * SPARED_WORDS];
  __asm volatile("" : : "r"(room) : "memory");
  call();
  __asm volatile("" : : "r"(room) : "memory");
}

/* Paints the stack below this frame, and says how far down the call has written over it. */
static __attribute__((noinline)) uint32_t depth(void (*call)(void)) {
  uint32_t *top;
  __asm volatile("mov %0, sp" : "=r"(top) : : "memory");
  top -= SPARED_WORDS;
  volatile uint32_t *const floor =
      top - firmware_stack_floor > PAINTED_WORDS ? top - PAINTED_WORDS : firmware_stack_floor;
  volatile uint32_t *word;
  for (word = floor; word < top; word++) *word = PAINT;
  deep(call);
  for (word = floor; word < top && *word == PAINT; word++) {
  }
  return (uint32_t)((uintptr_t)top - (uintptr_t)word);
}

void firmware_measure(void (*call)(void)) {
  TIMER_RELOAD = TIMER_PERIOD - 1u;
  TIMER_VALUE = 0;
  TIMER_CONTROL = TIMER_ON;
  const uint64_t empty = ticks(nothing);
  const uint64_t scale = ticks(known);
  const uint64_t cost = ticks(call);
  TIMER_CONTROL = 0;
  const uint32_t idle = depth(nothing);
  const uint32_t one = depth(touch);
  const uint32_t used = depth(call);
  firmware_report("known_instructions", KNOWN_INSTRUCTIONS);
  firmware_report("known_ticks", (uint32_t)(scale - empty));
  firmware_report("ticks_high", (uint32_t)((cost - empty) >> 32));
  firmware_report("ticks_low", (uint32_t)(cost - empty));
  firmware_report("stack", used > idle ? used - one + 4u : 0u);
}
