/* The shared library of these programs. */
#include "libstacks.h"

static volatile unsigned long sink;

void library_call(void (*callback)(void))
{
	char array[300];

	asm volatile("" : : "r"(array) : "memory");
	callback();
	asm volatile("" : : "r"(array) : "memory");
}

void library_leaf(void)
{
	for (int i = 0; i < 200000; i++)
		sink += i;
}

void library_tick(void)
{
	sink++;
}
