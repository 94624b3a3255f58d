/* Philox4x32-10 on V_LANES blocks at a time.
 *
 * J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
 *
 * Each block has a 64-bit lane for each of its four words. Only the low half counts: the widening
 * multiply reads no more and gives both halves of the product, so that nothing is masked between
 * rounds and the upper halves are left to be garbage.
 *
 * Lane 2k holds block k, lane 2k + 1 block V_LANES / 2 + k. Interleaving two words' vectors within
 * 128 bits, which is what every set does fast, then puts consecutive blocks in memory order. */
#ifndef WINIT_PHILOX_INL_H
#define WINIT_PHILOX_INL_H

#include "winit.h"

/* With registers for vectors, all of a kernel is one function, so that nothing passes through
 * memory. Plain C gains little from that, and would compile for minutes. */
#if !V_REGISTERS
#define V_INLINE static inline
#elif defined(_MSC_VER) && !defined(__clang__)
#define V_INLINE static __forceinline
#else
#define V_INLINE static inline __attribute__((always_inline))
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define V_NOINLINE static __declspec(noinline)
#define V_UNROLL
#elif defined(__clang__)
#define V_NOINLINE static __attribute__((noinline))
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_NOINLINE static __attribute__((noinline))
#define V_UNROLL _Pragma("GCC unroll 32")
#endif

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

typedef struct {
    vu m0, m1;
    vu key[PHILOX_ROUNDS][2];
    vu last;   /* both keys of the last round: the first's below the second's */
    vu any[3]; /* what the first round makes of c2 and c3, the same for all blocks */
    vu run[3]; /* what the first two make of c1, c2 and c3: philox_schedule_run */
    uint64_t seed, stream;
} philox_keys;

V_INLINE void philox_schedule(philox_keys *k, const winit_stream *s) {
    uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
    const uint64_t product = (uint64_t)PHILOX_M1 * (uint32_t)s->stream;
    k->seed = s->seed;
    k->stream = s->stream;
    k->m0 = v_set64(PHILOX_M0);
    k->m1 = v_set64(PHILOX_M1);
    k->any[0] = v_set64((uint32_t)(product >> 32) ^ k0);
    k->any[1] = v_set64((uint32_t)product);
    k->any[2] = v_set64((uint32_t)(s->stream >> 32) ^ k1);
    for (int r = 0; r < PHILOX_ROUNDS; r++) {
        k->key[r][0] = v_set64(k0);
        k->key[r][1] = v_set64(k1);
        k->last = v_set64(k0 | (uint64_t)k1 << 32);
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
}

/* For blocks whose upper word is c1: then half of the first two rounds is the same for all. */
V_INLINE void philox_schedule_run(philox_keys *k, uint32_t c1) {
    const uint32_t k0 = (uint32_t)k->seed, k1 = (uint32_t)(k->seed >> 32);
    const uint64_t p1 = (uint64_t)PHILOX_M1 * (uint32_t)k->stream;
    const uint64_t p0 = (uint64_t)PHILOX_M0 * ((uint32_t)(p1 >> 32) ^ c1 ^ k0);
    k->run[0] = v_set64((uint32_t)p1 ^ (k0 + PHILOX_W0));
    k->run[1] = v_set64((uint32_t)(p0 >> 32) ^ (k1 + PHILOX_W1));
    k->run[2] = v_set64((uint32_t)p0);
}

/* The first two rounds of the blocks in `block`. */
V_INLINE void philox_begin(const philox_keys *k, vu block, vu w[4]) {
    const vu p0 = v_mul_low(block, k->m0);
    const vu w0 = v_xor(k->any[0], v_shr64(block, 32)), w2 = v_xor(k->any[2], v_shr64(p0, 32));
    const vu q0 = v_mul_low(w0, k->m0), q1 = v_mul_low(w2, k->m1);
    w[0] = v_xor3(v_shr64(q1, 32), k->any[1], k->key[1][0]);
    w[1] = q1;
    w[2] = v_xor3(v_shr64(q0, 32), p0, k->key[1][1]);
    w[3] = q0;
}

/* The same for blocks whose upper word is that of philox_schedule_run, given their lower words
 * times the first round's multiplier. */
V_INLINE void philox_begin_run(const philox_keys *k, vu product, vu w[4]) {
    const vu q1 = v_mul_low(v_xor(k->any[2], v_shr64(product, 32)), k->m1);
    w[0] = v_xor(v_shr64(q1, 32), k->run[0]);
    w[1] = q1;
    w[2] = v_xor(product, k->run[1]);
    w[3] = k->run[2];
}

/* The other rounds, of groups whose first two are in w. Then w[g][0] has words 0 and 2 of each
 * block, one below the other, and w[g][1] words 1 and 3. The groups go round by round together,
 * since a round's latency is four times its work. */
V_INLINE void philox_end(const philox_keys *k, vu (*w)[4], const int groups) {
    V_UNROLL for (int r = 2; r < PHILOX_ROUNDS - 1; r++) {
        V_UNROLL for (int g = 0; g < groups; g++) {
            const vu p0 = v_mul_low(w[g][0], k->m0), p1 = v_mul_low(w[g][2], k->m1);
            w[g][0] = v_xor3(v_shr64(p1, 32), w[g][1], k->key[r][0]);
            w[g][1] = p1;
            w[g][2] = v_xor3(v_shr64(p0, 32), w[g][3], k->key[r][1]);
            w[g][3] = p0;
        }
    }
    V_UNROLL for (int g = 0; g < groups; g++) {
        const vu p0 = v_mul_low(w[g][0], k->m0), p1 = v_mul_low(w[g][2], k->m1);
        w[g][0] = v_xor3(v_pack_high(p1, p0), v_pack_low(w[g][1], w[g][3]), k->last);
        w[g][1] = v_pack_low(p1, p0);
    }
}

#endif
