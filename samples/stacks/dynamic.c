/*
 * Frames whose size is known at run time only: alloca and arrays of variable length.
 *
 * Usage: dynamic SECONDS
 *
 * Truth: main, by_alloca, by_array, by_loop, spin.
 */
#include <alloca.h>

#include "burn.h"

NOIPA static void by_loop(int count)
{
	for (int i = 1; i < count; i++) {
		char *grown = alloca(i);

		asm volatile("" : : "r"(grown) : "memory");
	}
	burn();
}

NOIPA static void by_array(int size)
{
	char array[size], other[3 * size];

	asm volatile("" : : "r"(array), "r"(other) : "memory", "rbx", "r12");
	by_loop(size);
	asm volatile("" : : "r"(array), "r"(other) : "memory");
}

NOIPA static void by_alloca(int size)
{
	char *room = alloca(size);

	asm volatile("" : : "r"(room) : "memory");
	by_array(size);
	asm volatile("" : : "r"(room) : "memory");
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	by_alloca(99 + argc);
	return 0;
}
