/*
 * Burns CPU time in a signal handler.
 *
 * Usage: signals KIND SECONDS
 *
 * Truth, where the frame of libc between the handler and what it interrupted is __restore_rt:
 *   alarm      main, wait_for_signal, [libc], on_signal, spin
 *   alternate  the same; the handler is on a stack of its own
 *   raise      main, raise_signal, raise and what it calls in libc, [libc], on_signal, spin
 *   fault      main, call_fault, fault, [libc], on_fault, spin; fault is interrupted at its first byte
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

#include "burn.h"

static volatile sig_atomic_t is_done;
static char alternate[1 << 16];

NOIPA static void on_signal(int number)
{
	(void)number;
	burn();
	is_done = 1;
}

NOIPA static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info;
	burn();
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; /* past ud2 */
}

NOIPA static void wait_for_signal(void)
{
	while (!is_done)
		sink++;
}

NOIPA static void raise_signal(void)
{
	raise(SIGALRM);
	NO_TAIL_CALL();
}

/* The address before fault() is another function's. */
__attribute__((naked, used)) void before_fault(void)
{
	asm volatile("push %rbx\n\tpop %rbx\n\tret");
}

__attribute__((naked)) void fault(void)
{
	asm volatile("ud2\n\tret");
}

NOIPA static void call_fault(void)
{
	fault();
	NO_TAIL_CALL();
}

static void handle(int number, int flags)
{
	struct sigaction action = {.sa_flags = flags};

	if (flags & SA_SIGINFO)
		action.sa_sigaction = on_fault;
	else
		action.sa_handler = on_signal;
	sigaction(number, &action, NULL);
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "alarm";
	struct itimerval soon = {.it_value.tv_usec = 1000};
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};

	start_clock(argc, argv);
	handle(SIGILL, SA_SIGINFO);
	handle(SIGALRM, strcmp(kind, "alternate") ? 0 : SA_ONSTACK);
	sigaltstack(&stack, NULL);
	if (!strcmp(kind, "raise")) {
		raise_signal();
	} else if (!strcmp(kind, "fault")) {
		call_fault();
	} else {
		setitimer(ITIMER_REAL, &soon, NULL);
		wait_for_signal();
	}
	return 0;
}
