/*
 * Functions so short that much of their time is in the instructions that make and remove their frames.
 *
 * Usage: prologues SECONDS
 *
 * Truth: main, call_often, then nothing, save_all, save_all and save_none, or grow.
 */
#include <alloca.h>

#include "burn.h"

NOIPA static void save_none(void)
{
	sink++;
}

NOIPA static void save_all(void)
{
	asm volatile("" : : : "rbx", "r12", "r13", "r14", "r15");
	save_none();
	NO_TAIL_CALL();
}

/* Removes its frame with `leave`, in one of two places. */
NOIPA static int grow(int size)
{
	char *room;

	if (size > 1000)
		return 1;
	room = alloca(size);
	asm volatile("" : : "r"(room) : "memory", "rbx");
	return size;
}

NOIPA static void call_often(int size)
{
	while (now() < limit) {
		for (int i = 0; i < 10000; i++) {
			save_all();
			if (i % 8 == 0)
				grow(size);
		}
	}
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	call_often(99 + argc);
	return 0;
}
