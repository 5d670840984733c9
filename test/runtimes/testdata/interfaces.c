/* Prints every interface and address that the C library lists. With an
 * argument, the process first makes itself not dumpable. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct ifaddrs *all, *i;
	struct if_nameindex *names, *n;

	if (argc > 1 && (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_GET_DUMPABLE) != 0)) {
		perror("prctl");
		return 1;
	}
	if (getifaddrs(&all) != 0) {
		perror("getifaddrs");
		return 1;
	}
	for (i = all; i; i = i->ifa_next) {
		char host[64];
		int size;

		if (!i->ifa_addr)
			continue;
		switch (i->ifa_addr->sa_family) {
		case AF_INET:
			size = sizeof(struct sockaddr_in);
			break;
		case AF_INET6:
			size = sizeof(struct sockaddr_in6);
			break;
		default:
			continue;
		}
		if (getnameinfo(i->ifa_addr, size, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
			return 1;
		printf("%s %s\n", i->ifa_name, host);
	}
	freeifaddrs(all);
	names = if_nameindex();
	if (!names) {
		perror("if_nameindex");
		return 1;
	}
	for (n = names; n->if_index; n++)
		printf("%s\n", n->if_name);
	return 0;
}
