// SPDX-License-Identifier: GPL-2.0-or-later
/* Drive an edu device through its mapped resource0. */
#include <string.h>

#include "probe.h"

#define STATUS_COMPUTING	0x01
#define STATUS_INTERRUPT	0x80

static struct edu open_edu(const char *path, u64 timeout_ms, bool interrupt)
{
	struct edu edu = { .timeout_ms = timeout_ms, .interrupt = interrupt };

	edu.registers = map_file(path, 0, PAGE, true);
	edu_check_id(&edu);
	return edu;
}

static int id(int argc, char **argv)
{
	struct edu edu;
	char *words[1];
	u32 liveness;

	parse_words(argc, argv, NULL, 0, words, 1, 1);
	edu = open_edu(words[0], 0, false);
	store(edu.registers + EDU_LIVENESS, 4, 0x12345678);
	liveness = (u32)load(edu.registers + EDU_LIVENESS, 4);
	printf("id=0x%08x\nliveness=0x%08x\nlive=%s\n", (u32)load(edu.registers + EDU_ID, 4),
	       liveness, yes_no(liveness == (u32)~0x12345678U));
	return ANSWERED;
}

static int factorial(int argc, char **argv)
{
	u64 timeout = 5000, n;
	bool interrupt = false;
	const struct opt opts[] = {
		{ "timeout", OPT_SECONDS, &timeout, NULL },
		{ "irq", OPT_FLAG, &interrupt, NULL },
	};
	struct edu edu;
	char *words[2];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 2, 2);
	n = parse_number("N", words[1]);
	edu = open_edu(words[0], timeout, interrupt);
	edu_wait_clear(&edu, EDU_STATUS, STATUS_COMPUTING, "factorial before ours");
	store(edu.registers + EDU_STATUS, 4, interrupt ? STATUS_INTERRUPT : 0);
	store(edu.registers + EDU_FACTORIAL, 4, n);
	edu_wait_clear(&edu, EDU_STATUS, STATUS_COMPUTING, "factorial");
	printf("factorial=%u\n", (u32)load(edu.registers + EDU_FACTORIAL, 4));
	return ANSWERED;
}

static int dma(int argc, char **argv)
{
	u64 timeout = 5000, address = 0, buffer = EDU_BUFFER, length = 0;
	bool to = false, from = false, interrupt = false, unchecked = false;
	bool address_given = false, length_given = false;
	const struct opt opts[] = {
		{ "to-device", OPT_FLAG, &to, NULL },
		{ "from-device", OPT_FLAG, &from, NULL },
		{ "address", OPT_NUMBER, &address, &address_given },
		{ "buffer", OPT_NUMBER, &buffer, NULL },
		{ "length", OPT_NUMBER, &length, &length_given },
		{ "timeout", OPT_SECONDS, &timeout, NULL },
		{ "irq", OPT_FLAG, &interrupt, NULL },
		{ "unchecked", OPT_FLAG, &unchecked, NULL },
	};
	struct edu edu;
	char *words[1];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 1, 1);
	if (to == from || !address_given || !length_given)
		misuse("edu dma needs --to-device or --from-device, --address and --length");
	/* Up to QEMU 9.0 the device aborts QEMU for this. */
	if (!unchecked && (buffer < EDU_BUFFER || length > EDU_BUFFER_SIZE ||
			   buffer - EDU_BUFFER > EDU_BUFFER_SIZE - length))
		misuse("0x%llx + 0x%llx is outside the device's buffer", (ull)buffer, (ull)length);
	edu = open_edu(words[0], timeout, interrupt);
	edu_transfer(&edu, to ? EDU_TO_DEVICE : EDU_FROM_DEVICE, address, buffer, length);
	puts("done=yes");
	return ANSWERED;
}

static int roundtrip(int argc, char **argv)
{
	u64 timeout = 5000, seed = 1;
	bool mask64 = false, interrupt = false;
	const struct opt opts[] = {
		{ "timeout", OPT_SECONDS, &timeout, NULL },
		{ "mask64", OPT_FLAG, &mask64, NULL },
		{ "irq", OPT_FLAG, &interrupt, NULL },
		{ "seed", OPT_NUMBER, &seed, NULL },
	};
	struct page pages[2];
	struct edu edu;
	char *words[1];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 1, 1);
	edu = open_edu(words[0], timeout, interrupt);
	pages_hold(pages, 2, 0, mask64 ? 0 : EDU_MASK_LIMIT);
	pattern_fill(seed, 0, pages[0].virt, PAGE);
	printf("from=0x%llx to=0x%llx\n", (ull)pages[0].phys, (ull)pages[1].phys);
	edu_transfer(&edu, EDU_TO_DEVICE, pages[0].phys, EDU_BUFFER, PAGE);
	edu_transfer(&edu, EDU_FROM_DEVICE, pages[1].phys, EDU_BUFFER, PAGE);
	printf("match=%s\n", yes_no(!memcmp(pages[0].virt, pages[1].virt, PAGE)));
	return ANSWERED;
}

/*
 * The stray write of the isolation tests. Its value is read back into memory of our own
 * first: a write of a value that never reached the device proves nothing about isolation.
 */
static int poke(int argc, char **argv)
{
	u64 timeout = 5000, address = 0, value = 0;
	bool mask64 = false, address_given = false, value_given = false;
	const struct opt opts[] = {
		{ "address", OPT_NUMBER, &address, &address_given },
		{ "value", OPT_NUMBER, &value, &value_given },
		{ "timeout", OPT_SECONDS, &timeout, NULL },
		{ "mask64", OPT_FLAG, &mask64, NULL },
	};
	struct page page;
	struct edu edu;
	char *words[1];
	bool loaded;

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 1, 1);
	if (!address_given || !value_given)
		misuse("edu poke needs --address and --value");
	if (!mask64 && address >= EDU_MASK_LIMIT)
		misuse("0x%llx needs a device with dma_mask set, and --mask64", (ull)address);
	edu = open_edu(words[0], timeout, false);
	pages_hold(&page, 1, 0, mask64 ? 0 : EDU_MASK_LIMIT);
	store(page.virt, 8, value);
	store(page.virt + 8, 8, ~value);
	edu_transfer(&edu, EDU_TO_DEVICE, page.phys, EDU_BUFFER, 8);
	edu_transfer(&edu, EDU_FROM_DEVICE, page.phys + 8, EDU_BUFFER, 8);
	loaded = load(page.virt + 8, 8) == value;
	printf("loaded=%s\n", yes_no(loaded));
	if (!loaded)
		fail("the value did not reach the device: is it bus master, is our memory mapped?");
	edu_transfer(&edu, EDU_FROM_DEVICE, address, EDU_BUFFER, 8);
	puts("done=yes");
	return ANSWERED;
}

static int interrupt(int argc, char **argv, enum edu_register which)
{
	struct edu edu;
	char *words[2];
	u64 value;

	parse_words(argc, argv, NULL, 0, words, 2, 2);
	value = parse_number("N", words[1]);
	edu = open_edu(words[0], 0, false);
	store(edu.registers + which, 4, value);
	printf("irq_status=0x%08x\n", (u32)load(edu.registers + EDU_IRQ_STATUS, 4));
	return ANSWERED;
}

static int run(int argc, char **argv)
{
	const char *what = argc ? argv[0] : "";

	argc--;
	argv++;
	if (!strcmp(what, "id"))
		return id(argc, argv);
	if (!strcmp(what, "factorial"))
		return factorial(argc, argv);
	if (!strcmp(what, "dma"))
		return dma(argc, argv);
	if (!strcmp(what, "roundtrip"))
		return roundtrip(argc, argv);
	if (!strcmp(what, "poke"))
		return poke(argc, argv);
	if (!strcmp(what, "raise"))
		return interrupt(argc, argv, EDU_IRQ_RAISE);
	if (!strcmp(what, "ack"))
		return interrupt(argc, argv, EDU_IRQ_ACK);
	misuse("edu id, factorial, dma, roundtrip, poke, raise or ack");
}

const struct command edu_command = {
	.name = "edu",
	.summary = "drive QEMU's edu device: DMA where asked, interrupts, arithmetic",
	.help =
	"  probe edu id FILE                     id=0x010000ed liveness=0x… live=yes|no\n"
	"  probe edu factorial FILE N [--irq] [--timeout S]      factorial=N\n"
	"  probe edu dma FILE --to-device|--from-device --address A --length L\n"
	"            [--buffer 0x40000] [--irq] [--timeout S] [--unchecked]      done=yes\n"
	"  probe edu roundtrip FILE [--mask64] [--seed N] [--irq] [--timeout S]\n"
	"            from=0x… to=0x…, then match=yes|no\n"
	"  probe edu poke FILE --address A --value V [--mask64] [--timeout S]\n"
	"            loaded=yes, then done=yes\n"
	"  probe edu raise FILE N                irq_status=0x…\n"
	"  probe edu ack FILE N                  irq_status=0x…\n"
	"\n"
	"FILE is the device's resource0. The caller has set COMMAND.MSE, and BME for DMA. done\n"
	"says that the device finished, not that memory was reached. roundtrip goes from one\n"
	"page of our own through the device to another; poke writes 8 bytes to any address.\n"
	"Without --mask64 addresses stay below 256 MiB, the device's default dma_mask.\n"
	"--timeout: 5 seconds. --unchecked lets dma leave the device's buffer.\n",
	.run = run,
};
