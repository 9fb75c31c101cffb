/*
 * Preloaded into User-Mode Linux, which saves and restores a guest's registers with a buffer of 2696 bytes (FP_SIZE of its
 * arch/x86: AVX-512 and protection keys). Processors with AMX have 11008 bytes of them, and xstateregs_set() of the host's
 * kernel takes all or nothing: without this a guest ends with "ptrace set fp regs failed, errno = 14" at its first process.
 * No program of a guest uses AMX, so its part, behind all that the buffer holds, is zero.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static char whole[1 << 16] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	static size_t size;
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	struct iovec *data = va_arg(arguments, void *);
	va_end(arguments);

	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
		return next(request, pid, address, data);
	if (!size) {
		/* How much there is, the kernel says when it is asked for more than that. */
		struct iovec all = { whole, sizeof(whole) };
		if (next(PTRACE_GETREGSET, pid, address, &all))
			return -1;
		size = all.iov_len;
		memset(whole, 0, sizeof(whole));
	}
	if (data->iov_len >= size)
		return next(request, pid, address, data);
	memcpy(whole, data->iov_base, data->iov_len);
	struct iovec all = { whole, size };
	return next(request, pid, address, &all);
}
