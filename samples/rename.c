/*
 * Gives its thread the name in argv[1], any bytes but NUL, and burns CPU time for argv[2] seconds.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static volatile uint64_t sink;

int main(int argc, char **argv)
{
	time_t limit;

	if (argc < 3)
		return 2;
	prctl(PR_SET_NAME, argv[1]);
	limit = time(NULL) + atoi(argv[2]);
	while (time(NULL) < limit)
		for (int i = 0; i < 100000; i++)
			sink += i;
	return 0;
}
