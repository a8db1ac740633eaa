/*
 * What the programs of this folder share: a leaf that burns CPU time, and functions that keep their frames.
 *
 * The last argument of each program is its run time in SECONDS.
 */
#ifndef BURN_H
#define BURN_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* Neither inlined nor cloned, and its callers know nothing about its body. */
#define NOIPA __attribute__((noipa))

/* After the last call of a function: what comes before cannot become a jump. */
#define NO_TAIL_CALL() asm volatile("")

static volatile uint64_t sink;
static double limit;

/* gcc takes the frame from a function that has no use for it, whatever the options say. */
#ifdef KEEP_FRAMES
#define KEEP_FRAME() asm volatile("" : : "r"(__builtin_frame_address(0)))
#else
#define KEEP_FRAME() (void)0
#endif

/* The leaf: somewhat less than a millisecond, without a call and, but for KEEP_FRAMES, without a frame. */
NOIPA static void spin(void)
{
	KEEP_FRAME();
	for (int i = 0; i < 200000; i++)
		sink += i;
}

__attribute__((always_inline)) static inline double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static inline void start_clock(int argc, char **argv)
{
	limit = now() + (argc > 1 ? atof(argv[argc - 1]) : 1.0);
}

/* Spins in its caller's frame until the run time is over. */
__attribute__((always_inline)) static inline void burn(void)
{
	while (now() < limit)
		spin();
	NO_TAIL_CALL();
}

#endif
