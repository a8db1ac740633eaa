/*
 * Calls a shared library through the PLT, which calls back into the program, which calls the library's leaf.
 *
 * Usage: library SECONDS
 *
 * Truth: main, library_call, callback, library_leaf.
 */
#include "burn.h"
#include "libstacks.h"

NOIPA static void callback(void)
{
	while (now() < limit)
		library_leaf();
	NO_TAIL_CALL();
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	library_call(callback);
	return 0;
}
