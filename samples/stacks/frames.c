/*
 * Frames of very different sizes, up to one of a MiB.
 *
 * Usage: frames SECONDS
 *
 * Truth: main, hold_70_kib, hold_nothing, hold_1_mib, hold_nothing_more, spin.
 */
#include "burn.h"

NOIPA static void hold_nothing_more(void)
{
	burn();
}

NOIPA static void hold_1_mib(void)
{
	char array[1 << 20];

	asm volatile("" : : "r"(array) : "memory");
	hold_nothing_more();
	asm volatile("" : : "r"(array) : "memory");
}

NOIPA static void hold_nothing(void)
{
	hold_1_mib();
	NO_TAIL_CALL();
}

NOIPA static void hold_70_kib(void)
{
	char array[70 << 10];

	asm volatile("" : : "r"(array) : "memory");
	hold_nothing();
	asm volatile("" : : "r"(array) : "memory");
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	hold_70_kib();
	return 0;
}
