/*
 * Burns CPU time in what C++ runs while an exception is on its way.
 *
 * Usage: exceptions KIND SECONDS
 *
 * Truth; the frames in brackets are the runtime's, one or more:
 *   destructor  main, catcher, thrower, Guard::~Guard, spin       unwinding goes on behind it
 *   catch       main, in_catch, spin
 *   landing     main, catcher, landing, in_landing, spin          a noexcept function, called by a landing pad
 *   object      main, catch_object, [libstdc++], Object::~Object, spin
 *   backtrace   main, trace, [libgcc_s], on_frame, spin           while libgcc itself walks the stack
 *   terminate   main, no_catcher, throw_number, [libstdc++], on_terminate, spin
 */
#include <cstring>
#include <exception>
#include <unwind.h>

#include "burn.h"

struct Guard {
	NOIPA ~Guard()
	{
		burn();
	}
};

struct Object {
	NOIPA ~Object()
	{
		burn();
	}
};

extern "C" {

NOIPA static void throw_number(int number)
{
	if (number)
		throw number;
}

NOIPA static void thrower(void)
{
	Guard guard;

	throw_number(1);
}

NOIPA static void in_landing(void) noexcept
{
	burn();
}

struct Lander {
	__attribute__((always_inline)) ~Lander()
	{
		in_landing();
	}
};

NOIPA static void landing(void)
{
	Lander lander;

	throw_number(1);
}

NOIPA static void catcher(void (*throws)(void))
{
	try {
		throws();
	} catch (int number) {
		sink += number;
	}
}

NOIPA static void in_catch(void)
{
	try {
		throw_number(1);
	} catch (int) {
		burn();
	}
}

NOIPA static void catch_object(void)
{
	try {
		throw Object();
	} catch (const Object &) {
		sink++;
	}
	NO_TAIL_CALL();
}

NOIPA static _Unwind_Reason_Code on_frame(struct _Unwind_Context *, void *)
{
	burn();
	return _URC_END_OF_STACK;
}

NOIPA static void trace(void)
{
	_Unwind_Backtrace(on_frame, nullptr);
	NO_TAIL_CALL();
}

[[noreturn]] NOIPA static void on_terminate(void)
{
	burn();
	_Exit(0);
}

NOIPA static void no_catcher(void)
{
	std::set_terminate(on_terminate);
	throw_number(1);
	NO_TAIL_CALL();
}
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "destructor";

	start_clock(argc, argv);
	if (!strcmp(kind, "destructor"))
		catcher(thrower);
	else if (!strcmp(kind, "catch"))
		in_catch();
	else if (!strcmp(kind, "landing"))
		catcher(landing);
	else if (!strcmp(kind, "object"))
		catch_object();
	else if (!strcmp(kind, "backtrace"))
		trace();
	else
		no_catcher();
	return 0;
}
