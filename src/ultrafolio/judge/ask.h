/*
 * How judged code asks: a run is determined by its subject and the answers so far. With no answer left, ask() ends the run
 * with its question.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWERS 512

static jmp_buf out;
static long answers[ANSWERS], asked[5];
static int given, used;
static int subject; /* what this run is about */

static long ask(int question, long page, long more)
{
	if (used < given)
		return answers[used++];
	asked[1] = question;
	asked[2] = page;
	asked[3] = more;
	longjmp(out, 1);
}
