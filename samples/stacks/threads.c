/*
 * Two threads with stacks of their own, while main waits.
 *
 * Usage: threads SECONDS
 *
 * Truth, where the two frames of libc are clone3 and start_thread:
 *   [libc], [libc], left_thread, left_work, spin
 *   [libc], [libc], right_thread, right_outer, right_inner, spin
 */
#include <pthread.h>

#include "burn.h"

NOIPA static void left_work(void)
{
	burn();
}

NOIPA static void *left_thread(void *unused)
{
	left_work();
	return unused;
}

NOIPA static void right_inner(void)
{
	burn();
}

NOIPA static void right_outer(void)
{
	char array[1000];

	asm volatile("" : : "r"(array) : "memory");
	right_inner();
	asm volatile("" : : "r"(array) : "memory");
}

NOIPA static void *right_thread(void *unused)
{
	right_outer();
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t left, right;

	start_clock(argc, argv);
	if (pthread_create(&left, NULL, left_thread, NULL) || pthread_create(&right, NULL, right_thread, NULL))
		return 1;
	pthread_join(left, NULL);
	pthread_join(right, NULL);
	return 0;
}
