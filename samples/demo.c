/*
 * A small report job, the workload of `make demo`: reads random numbers from the kernel, sorts them,
 * hashes them and writes them out, over and over.
 *
 * Usage: demo SECONDS
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORDS 65536

static uint32_t records[RECORDS];
static volatile uint64_t digest;

__attribute__((noinline)) static void read_records(int source)
{
	for (size_t done = 0; done < sizeof(records);) {
		ssize_t got = read(source, (char *)records + done, sizeof(records) - done);

		if (got <= 0)
			exit(1);
		done += got;
	}
}

__attribute__((noinline)) static void sift_down(uint32_t *heap, size_t root, size_t size)
{
	for (size_t child = 2 * root + 1; child < size; root = child, child = 2 * root + 1) {
		uint32_t held = heap[root];

		if (child + 1 < size && heap[child] < heap[child + 1])
			child++;
		if (held >= heap[child])
			return;
		heap[root] = heap[child];
		heap[child] = held;
	}
}

__attribute__((noinline)) static void sort_records(void)
{
	for (size_t root = RECORDS / 2; root-- > 0;)
		sift_down(records, root, RECORDS);
	for (size_t size = RECORDS - 1; size > 0; size--) {
		uint32_t largest = records[0];

		records[0] = records[size];
		records[size] = largest;
		sift_down(records, 0, size);
	}
}

__attribute__((noinline)) static uint64_t mix(uint64_t hash, uint32_t value)
{
	for (int round = 0; round < 8; round++) {
		hash = (hash ^ value) * 0xff51afd7ed558ccdULL;
		hash ^= hash >> 33;
	}
	return hash;
}

__attribute__((noinline)) static void hash_records(void)
{
	uint64_t hash = 0;

	for (size_t i = 0; i < RECORDS; i++)
		hash = mix(hash, records[i]);
	digest ^= hash;
}

__attribute__((noinline)) static void write_records(int target)
{
	for (size_t i = 0; i < RECORDS; i += 1024)
		if (pwrite(target, records + i, 4096, i * 4) != 4096)
			exit(1);
	if (ftruncate(target, 0))
		exit(1);
}

__attribute__((noinline)) static void make_report(int source, int target)
{
	read_records(source);
	sort_records();
	hash_records();
	write_records(target);
	digest++;
}

int main(int argc, char **argv)
{
	char name[] = "/tmp/pyprof-demo-XXXXXX";
	int source = open("/dev/urandom", O_RDONLY), target = mkstemp(name);
	time_t limit = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);

	if (source < 0 || target < 0)
		return 1;
	unlink(name);
	while (time(NULL) < limit)
		make_report(source, target);
	return 0;
}
