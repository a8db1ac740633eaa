/*
 * Forks COUNT children that end at once, then one that burns CPU time for a second in `late_child_work`.
 *
 * Usage: forks COUNT
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) void late_child_work(void)
{
	struct timespec time;

	do {
		for (int i = 0; i < 20000; i++)
			sink += i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	} while (time.tv_sec < 1);
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;
	int status;

	for (long i = 0; i <= count; i++) {
		pid_t child = fork();

		if (child < 0)
			return 1;
		if (child == 0) {
			if (i == count)
				late_child_work();
			_exit(0);
		}
		waitpid(child, &status, 0);
	}
	return 0;
}
