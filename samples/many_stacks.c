/*
 * Runs through COUNT distinct call stacks, SECONDS in all, an equal time in each.
 *
 * Usage: many_stacks COUNT SECONDS
 *
 * A stack is 13 calls deep; at each level one of two functions is called, by the bits of the stack's
 * number: 8,192 stacks are possible.
 * Build with -O0 -fno-omit-frame-pointer: a leaf without a frame would hide its caller.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define LEVELS 13

static volatile uint64_t sink;
static double slice_end;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void descend(unsigned int number, int level);

__attribute__((noinline)) void zero(unsigned int number, int level)
{
	descend(number, level);
}

__attribute__((noinline)) void one(unsigned int number, int level)
{
	descend(number, level);
}

/* Busy without a call: the clock is read only between rounds, in main's slice. */
__attribute__((noinline)) static void burn(void)
{
	for (int i = 0; i < 20000; i++)
		sink += i;
}

__attribute__((noinline)) static void descend(unsigned int number, int level)
{
	if (level == LEVELS) {
		while (now() < slice_end)
			burn();
		return;
	}
	if (number >> level & 1)
		one(number, level + 1);
	else
		zero(number, level + 1);
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 1 ? atoi(argv[1]) : 5000;
	double seconds = argc > 2 ? atof(argv[2]) : 10.0;
	double start = now();

	for (unsigned int number = 0; number < count; number++) {
		slice_end = start + seconds * (number + 1) / count;
		descend(number, 0);
	}
	return 0;
}
