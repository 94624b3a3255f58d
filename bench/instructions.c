/* Runs every kernel once, so that callgrind can count its instructions: see instructions.py.
 *
 * Writes one dump for each instruction set and case, named by the case. Only the second of two
 * equal calls is counted: the first does what happens only once, such as choosing the instruction
 * set. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#include "householder.h"
#include "winit.h"
#include "cases.h"

/* LONG is a multiple of any vector length, plus 3. Of rows of WIDTH elements, ROW are filled. */
enum { LONG = (1 << 14) + 3, SHORT = 16, ROW = 8, ROWS = 512, WIDTH = 64 };
enum { REFLECTORS = 64, LENGTH = 512, PANELS = 4, MOST_COLUMNS = 64 };

static const winit_stream stream = {UINT64_C(0x0123456789ABCDEF), UINT64_C(0xFEDCBA9876543210)};

typedef struct {
    const char *distribution;
    int type;
    int64_t rows, columns; /* of a matrix with WIDTH columns; one row is contiguous */
} fill_case;

/* Cases in addition to those of run_all, which covers all distributions and types. */
static const fill_case fills[] = {
    {"uniform", WINIT_BF16, 1, LONG},    {"uniform", WINIT_F16, 1, LONG},
    {"uniform", WINIT_E4M3FN, 1, LONG},  {"truncated", WINIT_BF16, 1, LONG},
    {"normal", WINIT_F32, 1, SHORT},     {"normal", WINIT_F32, ROWS, ROW},
    {"truncated", WINIT_F32, ROWS, ROW}, {"uniform", WINIT_BF16, ROWS, ROW},
    {"normal", WINIT_F32, ROWS, 1},      {"truncated", WINIT_F64, ROWS, 1},
};

/* Streaming stores have loops of their own; one case stands for all of them. */
static const fill_case streamed = {"normal", WINIT_F32, 1, LONG};

static winit_distribution make(const fill_case *c) {
    winit_distribution d;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const winit_parameters *p = &cases[k].p[c->type == WINIT_F64];
        if (strcmp(c->distribution, cases[k].name) == 0 &&
            winit_set(&d, cases[k].distribution, c->type, p) == 0) {
            return d;
        }
    }
    abort();
}

static void run_fill(const fill_case *c, int streaming) {
    static _Alignas(64) uint8_t dst[8 * (LONG > ROWS * WIDTH ? LONG : ROWS * WIDTH)];
    const winit_distribution d = make(c);
    const int64_t size = (int64_t)winit_type_size(c->type);
    const int64_t shape[] = {c->rows, c->columns}, index[] = {WIDTH, 1};
    const int64_t bytes[] = {WIDTH * size, size};
    const int outer = c->rows == 1; /* a contiguous run has only one axis */
    char name[80];
    for (int count = 0; count <= 1; count++) {
        if (count) CALLGRIND_TOGGLE_COLLECT;
        winit_fill(&d, &stream, dst, 1, 2 - outer, shape + outer, index + outer, bytes + outer,
                   streaming);
        if (count) CALLGRIND_TOGGLE_COLLECT;
    }
    snprintf(name, sizeof name, "%s: %s %s, %d x %d%s", winit_isa(), c->distribution,
             winit_type_name(c->type), (int)c->rows, (int)c->columns,
             streaming ? ", streaming" : "");
    CALLGRIND_DUMP_STATS_AT(name);
}

/* Computes reflectors from Gaussian vectors, then the triangular factors, then applies them. */
static void run_householder(void) {
    static _Alignas(64) float v[REFLECTORS * LENGTH], q[PANELS * LENGTH * MOST_COLUMNS];
    static _Alignas(64) float packed[REFLECTORS * LENGTH];
    static float tau[REFLECTORS], sign[REFLECTORS], factors[REFLECTORS * WINIT_GROUP];
    static const size_t stops[PANELS] = {REFLECTORS, REFLECTORS, REFLECTORS, REFLECTORS};
    const winit_householder *table = winit_reflections();
    const int64_t one = 1, four = sizeof *v, many = REFLECTORS * LENGTH;
    const int64_t all = (int64_t)(PANELS * LENGTH * table->columns_f32);
    winit_distribution d;
    char name[80];
    if (table->columns_f32 > MOST_COLUMNS) abort();
    winit_set(&d, "normal", WINIT_F32, &(winit_parameters){.scale = 1});
    for (int count = 0; count <= 1; count++) {
        winit_fill(&d, &stream, v, 0, 1, &many, &one, &four, 0);
        winit_fill(&d, &stream, q, 0, 1, &all, &one, &four, 0);
        if (count) CALLGRIND_TOGGLE_COLLECT;
        table->reflectors_f32(v, REFLECTORS, LENGTH, LENGTH, tau, sign);
        table->groups_f32(v, REFLECTORS, LENGTH, LENGTH, tau, factors, packed);
        table->apply_f32(packed, REFLECTORS, LENGTH, factors, 0, q, PANELS, stops);
        if (count) CALLGRIND_TOGGLE_COLLECT;
    }
    snprintf(name, sizeof name, "%s: reflectors float32, %d x %d", winit_isa(), REFLECTORS, LENGTH);
    CALLGRIND_DUMP_STATS_AT(name);
}

/* Runs normals of every type, and all other distributions in float32 and float64. */
static void run_all(void) {
    for (int type = 0; type < WINIT_TYPES; type++) {
        run_fill(&(fill_case){"normal", type, 1, LONG}, 0);
    }
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (strcmp(cases[k].name, "normal") == 0) continue;
        run_fill(&(fill_case){cases[k].name, WINIT_F32, 1, LONG}, 0);
        run_fill(&(fill_case){cases[k].name, WINIT_F64, 1, LONG}, 0);
    }
}

int main(void) {
    /* Under callgrind cpuid reports no AVX-512, so every set that counts as supported can run. */
    for (int k = 0; winit_isa_supported(k); k++) {
        if (winit_isa_choose(winit_isa_supported(k)) != 0) return 1;
        run_all();
        for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) run_fill(&fills[i], 0);
        run_fill(&streamed, 1);
        run_householder();
    }
    return 0;
}
