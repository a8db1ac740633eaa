/*
 * Burns CPU time in three functions with known shares: hot 60, warm 30, cool 10 %.
 *
 * Usage: shares SECONDS
 *
 * Build with -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls: each burning function calls
 * `spin` through a volatile pointer, so that it has a frame and its caller is not lost.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define ROUND 20000

static volatile uint64_t sink;

/* The leaf has a frame of its own: it calls nothing, so a walker would else miss its caller. */
__attribute__((noinline)) static void spin(long rounds)
{
	volatile char frame[64] = {0};

	for (long i = 0; i < rounds * ROUND; i++)
		sink += i ^ frame[i & 63];
}

static void (*volatile burn)(long) = spin;

__attribute__((noinline)) void hot(void) { burn(6); sink++; }
__attribute__((noinline)) void warm(void) { burn(3); sink++; }
__attribute__((noinline)) void cool(void) { burn(1); sink++; }

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
