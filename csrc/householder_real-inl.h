/* The functions of householder.h for one type. It is REAL, with FMA, the vector type VECTOR, its
 * operations V(f) and AS_WORDS; NAME(f) is the name of a function for this type.
 *
 * Dot products have LANES interleaved partial sums, which are added pairwise in halves: an order
 * that every vector width can follow. The inner loops use FMA explicitly: most processors do a
 * fused multiply-add in the time of a multiplication. On others it is a slow call. */

/* x'y in double precision: products of floats are exact, and normal draws cannot overflow. */
static double NAME(dot)(const REAL *x, const REAL *y, size_t n) {
    double sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            sums[lane] += (double)x[i + lane] * (double)y[i + lane];
        }
    }
    for (size_t lane = 0; i + lane < n; lane++) {
        sums[lane] += (double)x[i + lane] * (double)y[i + lane];
    }
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

/* v = x / pivot with pivot = x_0 + s |x|, s the sign of x_0, so that nothing cancels; then v_0 = 1
 * and tau = 2 / v'v (Golub & Van Loan, section 5.1). tau is computed from the *rounded* 1 / pivot.
 * So H'H - I has only the rounding errors of the single elements, which are independent.
 *
 * H x = -s |x| e_0 = R_jj e_0, so sign = -s is the sign of R_jj in the QR factors of the Gaussian
 * matrix that these reflectors triangularise; see orthogonal.md. A vector with one element needs no
 * special case: v = 1, tau = 2, H = -1, and H sign = s. The sign of a zero vector is positive; a
 * vector with one element is zero with probability 2^-25. */
static void NAME(reflector)(REAL *x, size_t n, REAL *tau, REAL *sign) {
    const double tail = NAME(dot)(x + 1, x + 1, n - 1);
    const double head = (double)x[0];
    const double norm = sqrt(tail + head * head);
    const double s = head < 0 ? -1.0 : 1.0;
    const REAL inverse = norm > 0 ? (REAL)(1.0 / (head + s * norm)) : (REAL)0;

    x[0] = 1;
    for (size_t i = 1; i < n; i++) x[i] *= inverse;
    *tau = (REAL)(2.0 / (1.0 + ((double)inverse * (double)inverse) * tail));
    *sign = (REAL)-s;
}

static void NAME(reflectors)(REAL *v, size_t rows, size_t length, size_t stride, REAL *tau,
                             REAL *sign) {
    const environment callers = environment_enter();
    assert(rows <= length && length <= stride);
    for (size_t r = 0; r < rows; r++) {
        memset(v + r * stride, 0, r * sizeof *v);
        NAME(reflector)(v + r * stride + r, length - r, tau + r, sign + r);
    }
    environment_leave(callers);
}

/* A column of V'V: the dot products of the vectors of a group with another vector, in REAL
 * arithmetic, with partial sums as in dot. */
static void NAME(dot_four)(const REAL *restrict v, size_t stride, const REAL *restrict y, size_t n,
                           REAL *products) {
    const REAL *restrict va = v, *restrict vb = va + stride, *restrict vc = vb + stride,
                         *restrict vd = vc + stride;
    REAL sums[GROUP][LANES], a[LANES] = {0}, b[LANES] = {0}, c[LANES] = {0}, d[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            a[lane] = FMA(va[i + lane], y[i + lane], a[lane]);
            b[lane] = FMA(vb[i + lane], y[i + lane], b[lane]);
            c[lane] = FMA(vc[i + lane], y[i + lane], c[lane]);
            d[lane] = FMA(vd[i + lane], y[i + lane], d[lane]);
        }
    }
    for (size_t lane = 0; i + lane < n; lane++) {
        a[lane] = FMA(va[i + lane], y[i + lane], a[lane]);
        b[lane] = FMA(vb[i + lane], y[i + lane], b[lane]);
        c[lane] = FMA(vc[i + lane], y[i + lane], c[lane]);
        d[lane] = FMA(vd[i + lane], y[i + lane], d[lane]);
    }
    memcpy(sums[0], a, sizeof a);
    memcpy(sums[1], b, sizeof b);
    memcpy(sums[2], c, sizeof c);
    memcpy(sums[3], d, sizeof d);
    for (size_t r = 0; r < GROUP; r++) {
        for (size_t half = LANES / 2; half > 0; half /= 2) {
            for (size_t lane = 0; lane < half; lane++) sums[r][lane] += sums[r][lane + half];
        }
        products[r * GROUP] = sums[r][0];
    }
}

/* H_0 ... H_{n-1} = I - V T V'. Since T^-1 + T^-T = V'V (Puglisi 1992), T^-1 has the strict upper
 * triangle of V'V, and 1 / tau on its diagonal. It is inverted row by row from the last, so that
 * the inner loops run along rows: with N = -T, N_i = -tau_i (e_i + sum over l > i of (V'V)_il N_l).
 */
static void NAME(factors)(const REAL *v, size_t count, size_t length, size_t stride,
                          const REAL *tau, REAL *factors) {
    const environment callers = environment_enter();
    assert(count % GROUP == 0);
    for (size_t start = 0; start < count; start += GROUP) {
        const REAL *first = v + start * stride + start;
        REAL *factor = factors + start * GROUP;
        REAL products[GROUP][GROUP] = {{0}};
        for (size_t l = 1; l < GROUP && start + l < length; l++) {
            NAME(dot_four)
            (first + l, stride, first + l * stride + l, length - start - l, &products[0][l]);
        }
        memset(factor, 0, GROUP * GROUP * sizeof *factor);
        for (size_t i = GROUP; i-- > 0;) {
            REAL *row = factor + i * GROUP;
            for (size_t l = i + 1; l < GROUP; l++) {
                for (size_t c = l; c < GROUP; c++) row[c] += products[i][l] * factor[l * GROUP + c];
            }
            row[i] = 1;
            for (size_t c = i; c < GROUP; c++) row[c] *= -tau[start + i];
        }
    }
    environment_leave(callers);
}

/* Applies one group to one panel: q <- (I - V T V')q, or its transpose. The four reflectors are
 * written out and rows are vectors, because otherwise compilers may keep the sums in memory. */
static void NAME(apply_group)(const REAL *restrict v, size_t stride, const REAL *factor,
                              size_t rows, int transposed, REAL *restrict q) {
    enum { WIDTH = sizeof(VECTOR) / sizeof(REAL), REGISTERS = COLUMNS / WIDTH };
    const REAL *restrict v0 = v, *restrict v1 = v0 + stride, *restrict v2 = v1 + stride,
                         *restrict v3 = v2 + stride;
    VECTOR a[REGISTERS], b[REGISTERS], c[REGISTERS], d[REGISTERS], t[GROUP][GROUP];
    for (size_t k = 0; k < REGISTERS; k++) a[k] = b[k] = c[k] = d[k] = V(set)(0);
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < REGISTERS; k++) {
            const VECTOR x = V(as_)(v_load(q + i * COLUMNS + k * WIDTH));
            a[k] = V(fma)(V(set)(v0[i]), x, a[k]);
            b[k] = V(fma)(V(set)(v1[i]), x, b[k]);
            c[k] = V(fma)(V(set)(v2[i]), x, c[k]);
            d[k] = V(fma)(V(set)(v3[i]), x, d[k]);
        }
    }
    for (size_t r = 0; r < GROUP; r++) {
        for (size_t l = 0; l < GROUP; l++) {
            t[r][l] = V(set)(transposed ? factor[l * GROUP + r] : factor[r * GROUP + l]);
        }
    }
    for (size_t k = 0; k < REGISTERS; k++) {
        VECTOR sums[GROUP];
        for (size_t r = 0; r < GROUP; r++) {
            sums[r] = V(fma)(t[r][1], b[k], V(mul)(t[r][0], a[k]));
            sums[r] = V(fma)(t[r][3], d[k], V(fma)(t[r][2], c[k], sums[r]));
        }
        a[k] = sums[0];
        b[k] = sums[1];
        c[k] = sums[2];
        d[k] = sums[3];
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < REGISTERS; k++) {
            REAL *const at = q + i * COLUMNS + k * WIDTH;
            VECTOR x = V(mul)(V(set)(v0[i]), a[k]);
            x = V(fma)(V(set)(v1[i]), b[k], x);
            x = V(fma)(V(set)(v2[i]), c[k], x);
            x = V(fma)(V(set)(v3[i]), d[k], x);
            x = V(add)(V(as_)(v_load(at)), x); /* last, so that q is rounded once per group */
            v_store(at, AS_WORDS(x));
        }
    }
}

static void NAME(apply)(const REAL *v, size_t count, size_t length, size_t stride,
                        const REAL *factors, int transposed, REAL *q, size_t panels,
                        const size_t *stops) {
    const environment callers = environment_enter();
    assert(count % GROUP == 0);
    for (size_t turn = 0; turn < count; turn += GROUP) {
        const size_t start = transposed ? turn : count - GROUP - turn;
        for (size_t panel = 0; panel < panels; panel++) {
            if (start < stops[panel]) {
                NAME(apply_group)
                (v + start * stride + start, stride, factors + start * GROUP, length - start,
                 transposed, q + (panel * length + start) * COLUMNS);
            }
        }
    }
    environment_leave(callers);
}
