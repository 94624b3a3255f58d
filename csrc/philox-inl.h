/* Philox4x32-10 on V_LANES blocks at a time.
 *
 * J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
 *
 * Each of the four words of a block is in the low half of a 64-bit lane. The widening
 * multiplication reads only the low half and gives both halves of the product, so that nothing has
 * to be masked between rounds; the high halves may hold anything.
 *
 * Lane 2k holds block k, and lane 2k + 1 holds block V_LANES / 2 + k. With this order, interleaving
 * the vectors of two words within 128 bits, which is fast on every instruction set, puts
 * consecutive blocks in memory order. */
#ifndef WINIT_PHILOX_INL_H
#define WINIT_PHILOX_INL_H

#include "philox.h"
#include "winit.h"

/* With vector registers, a kernel is inlined into one function, so that no vector is passed through
 * memory. In plain C inlining gains little and would take minutes to compile. */
#if !V_REGISTERS
#define V_INLINE static inline
#if defined(__GNUC__) && !defined(__clang__)
/* Without inlining GCC does not know that loops over n registers run at least once. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
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
#if V_REGISTERS
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else /* clang warns of loops whose count is not known without inlining */
#define V_UNROLL
#endif
#else
#define V_NOINLINE static __attribute__((noinline))
#define V_UNROLL _Pragma("GCC unroll 32")
#endif

/* One step of a computation on n registers: neighbouring instructions are independent, so that the
 * processor overlaps them. */
#define EACH(i, n) V_UNROLL for (int i = 0; i < (n); i++)
/* AT_ONCE: the most registers that a transform works on at a time; LOGS_AT_ONCE: the same for
 * logarithms alone. MOST_GROUPS, MOST_RADII: the most groups that a transform, or its first half,
 * is given. Arrays of these sizes tell compilers how often the loops run at most. */
enum { AT_ONCE = 2 * V_TOGETHER };
#if V_PACKED
enum { LOGS_AT_ONCE = 8, MOST_GROUPS = 24, MOST_RADII = MOST_GROUPS };
#else
enum { LOGS_AT_ONCE = AT_ONCE, MOST_GROUPS = V_TOGETHER, MOST_RADII = AT_ONCE };
#endif
V_INLINE int at_once(int count) { return count < AT_ONCE ? count : AT_ONCE; }

typedef struct {
    vu m0, m1;
    vu key[PHILOX_ROUNDS + 1][2]; /* after the last round: zero */
    vu last;   /* both keys of the last round, k0 in the low half of a lane, k1 in the high half */
    vu any[3]; /* results of the first round that depend only on c2 and c3 */
    vu run[3]; /* results of the first two rounds that depend only on c1, c2 and c3 */
    uint64_t seed, stream;
} philox_keys;

V_INLINE void philox_schedule(philox_keys *k, const winit_stream *s) {
    const uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
    const vu w0 = v_set32(PHILOX_W0), w1 = v_set32(PHILOX_W1);
    const uint64_t product = (uint64_t)PHILOX_M1 * (uint32_t)s->stream;
    k->seed = s->seed;
    k->stream = s->stream;
    k->m0 = v_set32(PHILOX_M0);
    k->m1 = v_set32(PHILOX_M1);
    k->any[0] = v_set32((uint32_t)(product >> 32) ^ k0);
    k->any[1] = v_set32((uint32_t)product);
    k->any[2] = v_set32((uint32_t)(s->stream >> 32) ^ k1);
    k->key[0][0] = v_set32(k0);
    k->key[0][1] = v_set32(k1);
    for (int r = 1; r < PHILOX_ROUNDS; r++) {
        k->key[r][0] = v_add32(k->key[r - 1][0], w0);
        k->key[r][1] = v_add32(k->key[r - 1][1], w1);
    }
    k->key[PHILOX_ROUNDS][0] = k->key[PHILOX_ROUNDS][1] = v_set32(0);
    k->last = v_pack_low(k->key[PHILOX_ROUNDS - 1][0], k->key[PHILOX_ROUNDS - 1][1]);
}

/* Prepares for blocks with the same upper word c1, which share half of the first two rounds. */
V_INLINE void philox_schedule_run(philox_keys *k, uint32_t c1) {
    const uint32_t k0 = (uint32_t)k->seed, k1 = (uint32_t)(k->seed >> 32);
    const uint64_t p1 = (uint64_t)PHILOX_M1 * (uint32_t)k->stream;
    const uint64_t p0 = (uint64_t)PHILOX_M0 * ((uint32_t)(p1 >> 32) ^ c1 ^ k0);
    k->run[0] = v_set32((uint32_t)p1 ^ (k0 + PHILOX_W0));
    k->run[1] = v_set32((uint32_t)(p0 >> 32) ^ (k1 + PHILOX_W1));
    k->run[2] = v_set32((uint32_t)p0);
}

/* The first two rounds, for any blocks, whose numbers are in `block`. */
V_INLINE void philox_begin(const philox_keys *k, vu block, vu w[4]) {
    const vu p0 = v_mul_low(block, k->m0);
    const vu w0 = v_xor(k->any[0], v_shr64(block, 32)), w2 = v_xor(k->any[2], v_shr64(p0, 32));
    const vu q0 = v_mul_low(w0, k->m0), q1 = v_mul_low(w2, k->m1);
    w[0] = v_xor3(v_shr64(q1, 32), k->any[1], k->key[1][0]);
    w[1] = q1;
    w[2] = v_xor3(v_shr64(q0, 32), p0, k->key[1][1]);
    w[3] = q0;
}

/* The same for blocks whose upper word is the c1 of philox_schedule_run. `product` is their lower
 * words times the multiplier of the first round. */
V_INLINE void philox_begin_run(const philox_keys *k, vu product, vu w[4]) {
    const vu q1 = v_mul_low(v_xor(k->any[2], v_shr64(product, 32)), k->m1);
    w[0] = v_xor(v_shr64(q1, 32), k->run[0]);
    w[1] = q1;
    w[2] = v_xor(product, k->run[1]);
    w[3] = k->run[2];
}

/* The other eight rounds, for several groups; w holds the results of the first two. Afterwards each
 * lane of words[2 g] has words 0 and 2 of a block, in its low and high half, and words[2 g + 1] has
 * words 1 and 3. The groups go through each round together, because the latency of a round is four
 * times the time that its instructions occupy the processor. */
V_INLINE void philox_end(const philox_keys *k, vu (*w)[4], const int groups, vu *words) {
    V_UNROLL for (int r = 2; r < PHILOX_ROUNDS - 1; r++) {
        EACH(g, groups) {
            const vu p0 = v_mul_low(w[g][0], k->m0), p1 = v_mul_low(w[g][2], k->m1);
            w[g][0] = v_xor3(v_shr64(p1, 32), w[g][1], k->key[r][0]);
            w[g][1] = p1;
            w[g][2] = v_xor3(v_shr64(p0, 32), w[g][3], k->key[r][1]);
            w[g][3] = p0;
        }
    }
    EACH(g, groups) {
        const vu p0 = v_mul_low(w[g][0], k->m0), p1 = v_mul_low(w[g][2], k->m1);
        words[2 * g] = v_xor3(v_pack_high(p1, p0), v_pack_low(w[g][1], w[g][3]), k->last);
        words[2 * g + 1] = v_pack_low(p1, p0);
    }
}

#if V_PACKED
/* The same with packed lanes: each word of 2 V_LANES blocks in the 32-bit lanes of one register.
 * Two multiplications give the products of all lanes, and their halves are taken apart by shuffles.
 *
 * On AVX2 each high half leaves the middle lanes of 128 bits exchanged, low halves do not. This
 * needs no correction: a high half meets a low half of the round before, which is the result of
 * lanes that were exchanged by the round before that one. Only at the end the low halves are
 * exchanged, too. The multipliers are constants, not those of the keys, so that compilers may
 * read them from memory: three sets need all 16 registers. */
V_INLINE void philox_packed_begin(const philox_keys *k, vu blocks, vu more_blocks, vu w[4]) {
    const vu m0 = v_set32(PHILOX_M0), m1 = v_set32(PHILOX_M1);
    const vu c0 = v_even32(blocks, more_blocks), c1 = v_exchanged32(v_odd32(blocks, more_blocks));
    vu p[2], q0[2], q1[2];
    v_mul_wide(c0, m0, p);
    const vu w0 = v_xor(k->any[0], c1), w2 = v_xor(k->any[2], v_odd32(p[0], p[1]));
    v_mul_wide(w0, m0, q0);
    v_mul_wide(w2, m1, q1);
    w[0] = v_xor3(v_odd32(q1[0], q1[1]), k->any[1], k->key[1][0]);
    w[1] = v_mul_low32(w2, m1, q1);
    w[2] = v_xor3(v_odd32(q0[0], q0[1]), v_mul_low32(c0, m0, p), k->key[1][1]);
    w[3] = v_mul_low32(w0, m0, q0);
}

/* The same for blocks whose upper word is that of philox_schedule_run; c0 has their lower words. */
V_INLINE void philox_packed_begin_run(const philox_keys *k, vu c0, vu w[4]) {
    const vu m0 = v_set32(PHILOX_M0), m1 = v_set32(PHILOX_M1);
    vu p[2], q1[2];
    v_mul_wide(c0, m0, p);
    const vu w2 = v_xor(k->any[2], v_odd32(p[0], p[1]));
    v_mul_wide(w2, m1, q1);
    w[0] = v_xor(v_odd32(q1[0], q1[1]), k->run[0]);
    w[1] = v_mul_low32(w2, m1, q1);
    w[2] = v_xor(v_mul_low32(c0, m0, p), k->run[1]);
    w[3] = k->run[2];
}

/* The low half of a product is combined with the high half of the next round and that round's key.
 * If this takes two operations, the first is done at once, and then compilers need no register for
 * the key beside those of both halves. */
V_INLINE vu philox_keyed(vu low, vu key) { return V_XOR3 ? low : v_xor(low, key); }
V_INLINE vu philox_joined(vu high, vu keyed, vu key) {
    return V_XOR3 ? v_xor3(high, keyed, key) : v_xor(high, keyed);
}

/* The other eight rounds, for several times 2 V_LANES blocks. Afterwards w[s] has the four words of
 * set s, in the order of its blocks. A set's two products are made one after the other, because all
 * registers are in use.
 *
 * This is a loop, because processors cache decoded instructions, a few kilobytes of code, which is
 * less than all rounds of three sets and a transform take. */
V_INLINE void philox_packed_rounds(const philox_keys *k, vu (*w)[4], const int sets) {
    const vu m0 = v_set32(PHILOX_M0), m1 = v_set32(PHILOX_M1);
    EACH(s, sets) {
        w[s][1] = philox_keyed(w[s][1], k->key[2][0]);
        w[s][3] = philox_keyed(w[s][3], k->key[2][1]);
    }
    for (int two = 2; two < PHILOX_ROUNDS; two += 2) {
        V_UNROLL for (int r = two; r < two + 2; r++) {
            EACH(s, sets) {
                const vu w0 = w[s][0], w2 = w[s][2];
                vu p[2];
                v_mul_wide(w2, m1, p);
                w[s][0] = philox_joined(v_odd32(p[0], p[1]), w[s][1], k->key[r][0]);
                w[s][1] = philox_keyed(v_mul_low32(w2, m1, p), k->key[r + 1][0]);
                v_mul_wide(w0, m0, p);
                w[s][2] = philox_joined(v_odd32(p[0], p[1]), w[s][3], k->key[r][1]);
                w[s][3] = philox_keyed(v_mul_low32(w0, m0, p), k->key[r + 1][1]);
            }
        }
    }
    EACH(s, sets) {
        w[s][1] = v_exchanged32(w[s][1]);
        w[s][3] = v_exchanged32(w[s][3]);
    }
}

/* The same, and the words in the layout in which philox_end returns those of twice as many groups.
 */
V_INLINE void philox_packed_end(const philox_keys *k, vu (*w)[4], const int sets, vu *words) {
    philox_packed_rounds(k, w, sets);
    EACH(s, sets) {
        words[4 * s] = v_unpack_low32(w[s][0], w[s][2]);
        words[4 * s + 1] = v_unpack_low32(w[s][1], w[s][3]);
        words[4 * s + 2] = v_unpack_high32(w[s][0], w[s][2]);
        words[4 * s + 3] = v_unpack_high32(w[s][1], w[s][3]);
    }
}
#endif

/* The 64-bit words of n groups: those of the even elements of group i in x[2 i], those of the odd
 * ones in x[2 i + 1]. The 32-bit words have this order already. */
V_INLINE void double_words(const vu *w, const int n, vu *x) {
    EACH(i, n) {
        x[2 * i] = v_pack_low(w[2 * i], w[2 * i + 1]);
        x[2 * i + 1] = v_pack_high(w[2 * i], w[2 * i + 1]);
    }
}

#endif
