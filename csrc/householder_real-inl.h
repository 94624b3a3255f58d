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

enum { NAME(width) = sizeof(VECTOR) / sizeof(REAL), NAME(columns) = V_PANEL * NAME(width) };

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
static void NAME(factors)(const REAL *v, size_t n, size_t stride, const REAL *tau, REAL *factor) {
    REAL products[GROUP][GROUP] = {{0}};
    for (size_t l = 1; l < GROUP && l < n; l++) {
        NAME(dot_four)(v + l, stride, v + l * stride + l, n - l, &products[0][l]);
    }
    memset(factor, 0, GROUP * GROUP * sizeof *factor);
    for (size_t i = GROUP; i-- > 0;) {
        REAL *row = factor + i * GROUP;
        for (size_t l = i + 1; l < GROUP; l++) {
            for (size_t c = l; c < GROUP; c++) row[c] += products[i][l] * factor[l * GROUP + c];
        }
        row[i] = 1;
        for (size_t c = i; c < GROUP; c++) row[c] *= -tau[i];
    }
}

static void NAME(groups)(const REAL *v, size_t count, size_t length, size_t stride, const REAL *tau,
                         REAL *factors, REAL *packed) {
    const environment callers = environment_enter();
    assert(count % GROUP == 0);
    for (size_t start = 0; start < count; start += GROUP) {
        const REAL *first = v + start * stride + start;
        NAME(factors)(first, length - start, stride, tau + start, factors + start * GROUP);
        for (size_t i = 0; i < length - start; i++) {
            for (size_t r = 0; r < GROUP; r++) *packed++ = first[r * stride + i];
        }
    }
    environment_leave(callers);
}

/* Applies one group to one panel: q <- (I - V T V')q, or its transpose. A row of a panel has
 * V_PANEL vectors: enough for the sums of four reflectors to hide the latency of a multiply-add (8
 * sums with AVX-512), and few enough for the registers (with AVX2 12 sums, 3 vectors of q and one
 * number of v are all 16). Wider rows need fewer loads for each product.
 *
 * The packed vectors of the following group, which end or begin where those of this group do, are
 * in L3, and no processor knows that they come next: `next` are as many rows of them as of this
 * group, to be prefetched. */
static void NAME(apply_group)(const REAL *restrict v, const REAL *factor, size_t rows,
                              int transposed, REAL *restrict q, const REAL *next) {
    enum { WIDTH = NAME(width), COLUMNS = NAME(columns) };
    const size_t along = transposed ? GROUP : 1, down = transposed ? 1 : GROUP;
    VECTOR sums[GROUP][V_PANEL], x[V_PANEL];
    for (size_t r = 0; r < GROUP; r++) {
        for (size_t k = 0; k < V_PANEL; k++) sums[r][k] = V(set)(0);
    }
    UNROLL_4 for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < V_PANEL; k++) x[k] = V(as_)(v_load(q + i * COLUMNS + k * WIDTH));
        for (size_t r = 0; r < GROUP; r++) {
            const VECTOR y = V(set)(v[i * GROUP + r]);
            for (size_t k = 0; k < V_PANEL; k++) sums[r][k] = V(fma)(y, x[k], sums[r][k]);
        }
    }
    for (size_t k = 0; k < V_PANEL; k++) {
        VECTOR made[GROUP];
        for (size_t r = 0; r < GROUP; r++) {
            const REAL *t = factor + r * down;
            made[r] = V(mul)(V(set)(t[0]), sums[0][k]);
            for (size_t l = 1; l < GROUP; l++) {
                made[r] = V(fma)(V(set)(t[l * along]), sums[l][k], made[r]);
            }
        }
        for (size_t r = 0; r < GROUP; r++) sums[r][k] = made[r];
    }
    /* from the last row on, because the last rows are still in L1 */
    UNROLL_4 for (size_t i = rows; i-- > 0;) {
        PREFETCH(next + i * GROUP);
        const VECTOR y = V(set)(v[i * GROUP]);
        for (size_t k = 0; k < V_PANEL; k++) x[k] = V(mul)(y, sums[0][k]);
        for (size_t r = 1; r < GROUP; r++) {
            const VECTOR z = V(set)(v[i * GROUP + r]);
            for (size_t k = 0; k < V_PANEL; k++) x[k] = V(fma)(z, sums[r][k], x[k]);
        }
        for (size_t k = 0; k < V_PANEL; k++) { /* q is last, so that it is rounded once per group */
            REAL *const at = q + i * COLUMNS + k * WIDTH;
            v_store(at, AS_WORDS(V(add)(V(as_)(v_load(at)), x[k])));
        }
    }
}

static void NAME(apply)(const REAL *packed, size_t count, size_t length, const REAL *factors,
                        int transposed, REAL *q, size_t panels, const size_t *stops) {
    const environment callers = environment_enter();
    const size_t columns = NAME(columns);
    assert(count % GROUP == 0);
    for (size_t turn = 0; turn < count; turn += GROUP) {
        const size_t start = transposed ? turn : count - GROUP - turn;
        const REAL *v = packed + winit_packed(start, length);
        const size_t rows = length - start;
        const ptrdiff_t ahead = transposed ? (ptrdiff_t)(rows - GROUP) : -(ptrdiff_t)rows;
        const REAL *next = turn + GROUP < count ? v + ahead * GROUP : v;
        for (size_t panel = 0; panel < panels; panel++) {
            if (start < stops[panel]) {
                NAME(apply_group)
                (v, factors + start * GROUP, rows, transposed,
                 q + (panel * length + start) * columns, next);
            }
        }
    }
    environment_leave(callers);
}

static void NAME(store)(const REAL *restrict q, size_t length, size_t width, const double *scales,
                        size_t scaled, double rest, REAL *restrict out, ptrdiff_t row_stride,
                        ptrdiff_t column_stride) {
    enum { WIDTH = NAME(width), COLUMNS = NAME(columns) };
    const environment callers = environment_enter();
    if (column_stride == 1) {
        for (size_t row = 0; row < length; row++) {
            const REAL scale = (REAL)(row < scaled ? scales[row] : rest);
            REAL *to = out + (ptrdiff_t)row * row_stride;
            for (size_t first = 0; first < width; first += COLUMNS, to += COLUMNS) {
                const REAL *from = q + first * length + row * COLUMNS;
                if (width - first >= COLUMNS) {
                    for (size_t k = 0; k < COLUMNS; k += WIDTH) {
                        const VECTOR x = V(as_)(v_load(from + k));
                        v_store(to + k, AS_WORDS(V(mul)(V(set)(scale), x)));
                    }
                } else {
                    for (size_t k = 0; k < width - first; k++) to[k] = scale * from[k];
                }
            }
        }
    } else {
        for (size_t start = 0; start < length; start += ROWS_AT_ONCE) {
            const size_t left = length - start;
            const size_t stop = start + (left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE);
            for (size_t column = 0; column < width; column++) {
                const REAL *panel = q + column / COLUMNS * COLUMNS * length + column % COLUMNS;
                REAL *to = out + (ptrdiff_t)column * column_stride;
                for (size_t row = start; row < stop; row++) {
                    const REAL scale = (REAL)(row < scaled ? scales[row] : rest);
                    to[(ptrdiff_t)row * row_stride] = scale * panel[row * COLUMNS];
                }
            }
        }
    }
    environment_leave(callers);
}
