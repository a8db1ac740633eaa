/*
 * Burns CPU time in three functions with known shares: hot 60, warm 30, cool 10 %.
 *
 * Usage: shares SECONDS
 *
 * Build with -O0 -fno-omit-frame-pointer: a leaf without a frame would hide its caller.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define ROUND 4000000 /* about 10 ms: a cycle of 10 rounds is far longer than a sampling period */

static volatile uint64_t sink;

__attribute__((noinline)) static void spin(long rounds)
{
	for (long i = 0; i < rounds * ROUND; i++)
		sink += i;
}

__attribute__((noinline)) void hot(void) { spin(6); }
__attribute__((noinline)) void warm(void) { spin(3); }
__attribute__((noinline)) void cool(void) { spin(1); }

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double limit = now() + (argc > 1 ? atof(argv[1]) : 1.0);

	while (now() < limit) {
		hot();
		warm();
		cool();
	}
	return 0;
}
