/*
 * Is mostly in code that the kernel brings: in a system call, or in the vDSO.
 *
 * Usage: system KIND SECONDS
 *
 * Truth:
 *   read   main, read_zeros, read, then the kernel's frames
 *   clock  main, read_clock, clock_gettime, then the vDSO's frame
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "burn.h"

static char zeros[1 << 20];

NOIPA static void read_zeros(int file)
{
	while (now() < limit)
		if (read(file, zeros, sizeof(zeros)) < 0)
			exit(1);
}

NOIPA static void read_clock(void)
{
	while (now() < limit)
		;
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "clock"))
		read_clock();
	else
		read_zeros(open("/dev/zero", O_RDONLY));
	return 0;
}
