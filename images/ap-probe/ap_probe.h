/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ap-probe: one static program that does on an AP host what a shell cannot: it says the errno
 * of a write to sysfs, and holds the descriptors of VFIO and KVM.
 *
 * A conversation: each line of input is one request, each gets exactly one line of output,
 * "ok" and blank-separated words, or the name of an errno. Requests may be sent ahead.
 */
#ifndef AP_PROBE_H
#define AP_PROBE_H

#include <stdint.h>

/* What a request handler returns; it has printed the rest of the line, without its end. */
enum { GO_ON = 0, LEAVE = 1 };

struct request {
	const char *name;
	const char *help;
	int (*run)(char *words);	/* what follows the name; may be changed */
};

int converse(const struct request *requests, int count);
int failed(void);			/* print the name of errno; GO_ON */
char *first_word(char **rest);		/* NULL if there is none */
int succeeded(void);			/* print ok; GO_ON */
int done(const char *format, ...) __attribute__((format(printf, 1, 2)));	/* print ok …; GO_ON */

int sysfs_main(void);
int vfio_main(void);

/* vfio.c shares its descriptors with kvm.c: -1 while they are not open */
extern int group_fd;
int kvm_open(char *words);
int kvm_group(char *words);
int kvm_apie(char *words);
int kvm_vcpu(char *words);
int kvm_run(char *words);
void kvm_close(void);

#endif
