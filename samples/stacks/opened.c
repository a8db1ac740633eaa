/*
 * Opens a shared library while it runs and burns in the library's leaf, below a callback.
 *
 * Usage: opened SECONDS
 *
 * Truth: main, library_call, callback, library_leaf.
 */
#include <dlfcn.h>

#include "burn.h"

static void (*leaf)(void);

NOIPA static void callback(void)
{
	while (now() < limit)
		leaf();
	NO_TAIL_CALL();
}

int main(int argc, char **argv)
{
	void *library = dlopen("libstacks.so", RTLD_NOW);
	void (*call)(void (*)(void));

	if (!library)
		return 1;
	leaf = (void (*)(void))dlsym(library, "library_leaf");
	call = (void (*)(void (*)(void)))dlsym(library, "library_call");
	start_clock(argc, argv);
	call(callback);
	return 0;
}
