/*
 * Functions that align their own stack: the distance to their caller's frame is not a constant.
 *
 * Usage: realign SECONDS
 *
 * Truth: main, align_array, align_arguments, align_alloca, spin.
 *
 * main and align_arguments find their caller by rbp. align_array and align_alloca keep the address of what their
 * caller pushed last, in r10 at first and then in memory: the CFA is what rbp - 8 points at.
 */
#include <alloca.h>

#include "burn.h"

NOIPA static void align_alloca(int size)
{
	__attribute__((aligned(64))) char array[64];
	char *room = alloca(size);

	asm volatile("" : : "r"(array), "r"(room) : "memory");
	burn();
	asm volatile("" : : "r"(array), "r"(room) : "memory");
}

NOIPA static void align_arguments(int a, int b, int c, int d, int e, int f, int on_stack, int size)
{
	__attribute__((aligned(128))) char array[128];

	asm volatile("" : : "r"(array), "r"(a + b + c + d + e + f + on_stack) : "memory");
	align_alloca(size);
	asm volatile("" : : "r"(array), "r"(on_stack) : "memory");
}

NOIPA static void align_array(int size)
{
	__attribute__((aligned(64))) char array[64];

	asm volatile("" : : "r"(array) : "memory");
	align_arguments(1, 2, 3, 4, 5, 6, 7, size);
	asm volatile("" : : "r"(array) : "memory");
}

__attribute__((force_align_arg_pointer)) int main(int argc, char **argv)
{
	start_clock(argc, argv);
	align_array(99 + argc);
	return 0;
}
