/* Preloaded into a program: it is not dumpable from its first instruction. */
#include <stdlib.h>
#include <sys/prctl.h>

__attribute__((constructor)) static void undump(void)
{
	if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_GET_DUMPABLE) != 0)
		abort();
}
