/*
 * Calls a tiny function of a shared library through the PLT, without end.
 *
 * Usage: plt SECONDS
 *
 * Truth: main, call_often, then nothing, library_tick or the stub library_tick@plt. With LD_BIND_NOT=1 in the
 * environment the dynamic linker looks the function up at each call: the stub goes through the first
 * entry of the PLT, and the linker's frames follow upon call_often.
 */
#include "burn.h"
#include "libstacks.h"

NOIPA static void call_often(void)
{
	while (now() < limit)
		for (int i = 0; i < 20000; i++)
			library_tick();
}

int main(int argc, char **argv)
{
	start_clock(argc, argv);
	call_often();
	return 0;
}
