/*
 * A process of about MS milliseconds of CPU time, all of it in `burst_work`.
 *
 * Usage: burst MS
 *
 * Started again and again it makes a storm of processes that are gone before anybody can look them up.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void burst_spin(void)
{
	for (int i = 0; i < 20000; i++)
		sink += i;
}

__attribute__((noinline)) void burst_work(double seconds)
{
	struct timespec time;

	do {
		burst_spin();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	} while (time.tv_sec + time.tv_nsec / 1e9 < seconds);
}

int main(int argc, char **argv)
{
	burst_work((argc > 1 ? atof(argv[1]) : 20.0) / 1000);
	return 0;
}
