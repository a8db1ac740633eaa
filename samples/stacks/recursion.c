/*
 * Three functions with different frames call each other in turn, DEPTH calls in all, and the last one burns.
 *
 * Usage: recursion DEPTH SECONDS
 *
 * Truth: main, (descend_plain, descend_array, descend_saved) repeated and cut to DEPTH frames, spin.
 */
#include "burn.h"

static int deepest;

void descend_array(int depth);
void descend_saved(int depth);

NOIPA void descend_plain(int depth)
{
	if (depth == deepest)
		burn();
	else
		descend_array(depth + 1);
	NO_TAIL_CALL();
}

NOIPA void descend_array(int depth)
{
	char array[200];

	asm volatile("" : : "r"(array) : "memory");
	if (depth == deepest)
		burn();
	else
		descend_saved(depth + 1);
	asm volatile("" : : "r"(array) : "memory");
}

/* Every callee-saved register is pushed, rbp too where it is no frame pointer. */
NOIPA void descend_saved(int depth)
{
	asm volatile("" : : : "rbx", "r12", "r13", "r14", "r15");
	if (depth == deepest)
		burn();
	else
		descend_plain(depth + 1);
	NO_TAIL_CALL();
}

int main(int argc, char **argv)
{
	deepest = argc > 1 ? atoi(argv[1]) : 60;
	start_clock(argc, argv);
	descend_plain(1);
	return 0;
}
