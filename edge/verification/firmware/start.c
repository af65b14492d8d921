/* Start of a Cortex-M in the emulator: vectors, memory, and the program's end as exit code. */
#include "firmware.h"

extern uint32_t firmware_data_from[], firmware_data_start[], firmware_data_end[];
extern uint32_t firmware_zero_start[], firmware_zero_end[];
extern uint32_t firmware_stack_top[];

int main(void);
void firmware_tick(void);
void firmware_start(void);

static void fault(void) {
  firmware_write("\n@fault 1\n");
  firmware_exit(3);
}

void firmware_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  /* Coprocessors 10 and 11, the floating-point unit and vectors, are off after a reset. */
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm volatile("dsb\n isb" ::: "memory");
#endif
  const uint32_t *from = firmware_data_from;
  for (uint32_t *to = firmware_data_start; to < firmware_data_end; to++) *to = *from++;
  for (volatile uint32_t *to = firmware_zero_start; to < firmware_zero_end; to++) *to = 0;
  firmware_exit(main());
}

#define FAULT (const void *)fault

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    firmware_stack_top, (const void *)firmware_start,
    FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT, FAULT,
    (const void *)firmware_tick,
};
