/*
 * Maps many pieces of a library as code, each apart from the next, then burns CPU time: main;burn.
 *
 * Usage: mappings FILE COUNT SECONDS
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096

static volatile uint64_t sink;

__attribute__((noinline)) static void burn(void)
{
	for (int i = 0; i < 5000000; i++)
		sink += i;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int file = open(argv[1], O_RDONLY);
	double limit;

	for (int i = 0; argc > 3 && i < atoi(argv[2]); i++) {
		mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, (i % 16) * PAGE);
		mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	limit = now() + atof(argv[3]);
	while (now() < limit)
		burn();
	return 0;
}
