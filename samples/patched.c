/*
 * Makes one page of its own code writable, as hot patching does, and burns CPU time in another.
 *
 * Usage: patched SECONDS
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096

static volatile uint64_t sink;

__attribute__((noinline, aligned(PAGE))) void patched_page(void)
{
	sink++;
}

__attribute__((noinline, aligned(PAGE))) void spin(void)
{
	for (int i = 0; i < 20000; i++)
		sink += i;
}

__attribute__((noinline)) void caller_of_spin(double seconds)
{
	struct timespec time;

	do {
		spin();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	} while (time.tv_sec + time.tv_nsec / 1e9 < seconds);
}

int main(int argc, char **argv)
{
	if (mprotect((void *)patched_page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
		return 1;
	caller_of_spin(argc > 1 ? atof(argv[1]) : 1.0);
	return 0;
}
