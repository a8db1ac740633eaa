/*
 * A function that ends with a call which does not return: its return address is the next function's first byte.
 *
 * Usage: noreturn SECONDS
 *
 * Truth: main, last_call, leave, spin.
 *
 * Build with -falign-functions=1 -fno-toplevel-reorder, so that nothing is between the functions.
 */
#include <setjmp.h>

#include "burn.h"

static jmp_buf back;

__attribute__((noreturn)) NOIPA static void leave(void)
{
	for (int i = 0; i < 20 && now() < limit; i++)
		spin();
	longjmp(back, 1);
}

NOIPA void last_call(void)
{
	char array[100];

	asm volatile("" : : "r"(array) : "memory");
	leave();
}

/* Its frame is quite another: whoever takes it for the caller does not find main. */
NOIPA void next_function(void)
{
	char array[5000];

	asm volatile("" : : "r"(array) : "memory");
	spin();
	asm volatile("" : : "r"(array) : "memory", "rbx", "r12", "r13");
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	setjmp(back);
	if (now() < limit)
		last_call();
	return 0;
}
