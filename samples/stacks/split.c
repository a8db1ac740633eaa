/*
 * A function that the compiler splits, and one that it leaves with a jump.
 *
 * Usage: split SECONDS
 *
 * Truth, with -O2 only: main, split.cold, rare, after_jump, spin. The unlikely part of split has its own symbol and
 * its own table entry, which begins in the middle of a frame; rare calls jump_away, which is gone when after_jump
 * burns.
 */
#include "burn.h"

NOIPA static void after_jump(void)
{
	burn();
}

NOIPA static void jump_away(void)
{
	sink++;
	after_jump();
}

__attribute__((cold)) NOIPA static void rare(void)
{
	jump_away();
	NO_TAIL_CALL();
}

NOIPA static void split(int is_rare)
{
	char array[100];

	asm volatile("" : : "r"(array) : "memory", "rbx", "r12");
	if (is_rare)
		rare();
	asm volatile("" : : "r"(array) : "memory");
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	split(0);
	split(argc);
	return 0;
}
