/*
 * The arithmetic of householder.h for one type: REAL, its FMA, and NAME(f) to name a function for it.
 *
 * Sums have LANES interleaved partial sums, joined by halving: an order that every vector width can
 * follow. Where nearly all operations are, FMA is written out: most processors do a fused
 * multiply-add in the time of either half. On one without it, it is a slow call.
 */

/* x'y, in double: exact products for float, and no overflow for what a normal can be. */
static double NAME(dot)(const REAL *x, const REAL *y, size_t n) {
    double sums[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sums[lane] += (double)x[i + lane] * (double)y[i + lane];
    for (size_t lane = 0; i + lane < n; lane++)
        sums[lane] += (double)x[i + lane] * (double)y[i + lane];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
}

/*
 * v = x / pivot with pivot = x_0 + s |x|, s the sign of x_0, so that nothing cancels; then v_0 = 1
 * and tau = 2 / v'v (Golub & Van Loan, section 5.1). tau is that of the *rounded* 1 / pivot: so
 * what the rounding leaves of H'H - I is only that of the single elements, which are independent.
 *
 * H x = -s |x| e_0 = R_jj e_0, so sign = -s is the sign of R_jj in the QR factors of the Gaussian
 * matrix that these reflectors triangularise; see orthogonal.md. A vector of one element is
 * no exception: v = 1, tau = 2, H = -1, and H sign = s. A zero vector, which has probability 2^-25
 * where there is but one element left, counts as positive.
 */
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

/* A column of V'V: the products of a group of vectors with another, in the type itself; lanes as
 * in dot. */
static void NAME(dot_four)(const REAL *restrict v, size_t stride, const REAL *restrict y, size_t n,
                           REAL *products) {
    const REAL *restrict va = v, *restrict vb = va + stride, *restrict vc = vb + stride,
                         *restrict vd = vc + stride;
    REAL sums[GROUP][LANES], a[LANES] = {0}, b[LANES] = {0}, c[LANES] = {0}, d[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            a[lane] = FMA(va[i + lane], y[i + lane], a[lane]);
            b[lane] = FMA(vb[i + lane], y[i + lane], b[lane]);
            c[lane] = FMA(vc[i + lane], y[i + lane], c[lane]);
            d[lane] = FMA(vd[i + lane], y[i + lane], d[lane]);
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
        for (size_t half = LANES / 2; half > 0; half /= 2)
            for (size_t lane = 0; lane < half; lane++) sums[r][lane] += sums[r][lane + half];
        products[r * GROUP] = sums[r][0];
    }
}

/*
 * H_0 ... H_{n-1} = I - V T V'. Since T^-1 + T^-T = V'V (Puglisi 1992), T^-1 has the strict upper
 * triangle of V'V, and 1 / tau on its diagonal. Its inverse by rows from the last, so that the
 * inner loops run along rows: with N = -T, N_i = -tau_i (e_i + sum over l > i of (V'V)_il N_l).
 */
static void NAME(factors)(const REAL *v, size_t count, size_t length, size_t stride,
                          const REAL *tau, REAL *factors) {
    const environment callers = environment_enter();

    assert(count % GROUP == 0);
    for (size_t start = 0; start < count; start += GROUP) {
        const REAL *first = v + start * stride + start;
        REAL *factor = factors + start * GROUP;
        REAL products[GROUP][GROUP] = {{0}};

        for (size_t l = 1; l < GROUP && start + l < length; l++) NAME(dot_four)
        (first + l, stride, first + l * stride + l, length - start - l, &products[0][l]);
        memset(factor, 0, GROUP * GROUP * sizeof *factor);
        for (size_t i = GROUP; i-- > 0;) {
            REAL *row = factor + i * GROUP;

            for (size_t l = i + 1; l < GROUP; l++)
                for (size_t c = l; c < GROUP; c++) row[c] += products[i][l] * factor[l * GROUP + c];
            row[i] = 1;
            for (size_t c = i; c < GROUP; c++) row[c] *= -tau[start + i];
        }
    }
    environment_leave(callers);
}

/*
 * One group on one block of columns: q <- (I - V T V')q, or its transpose. The four reflectors are
 * spelt out, since only then do compilers keep all sums in registers.
 */
static void NAME(apply_group)(const REAL *restrict v, size_t stride, const REAL *factor,
                              size_t rows, int transposed, REAL *restrict q) {
    const REAL *restrict va = v, *restrict vb = va + stride, *restrict vc = vb + stride,
                         *restrict vd = vc + stride;
    REAL a[COLUMNS] = {0}, b[COLUMNS] = {0}, c[COLUMNS] = {0}, d[COLUMNS] = {0};
    REAL t[GROUP][GROUP];

    for (size_t i = 0; i < rows; i++) {
        const REAL *restrict row = q + i * COLUMNS;

        for (size_t k = 0; k < COLUMNS; k++) {
            a[k] = FMA(va[i], row[k], a[k]);
            b[k] = FMA(vb[i], row[k], b[k]);
            c[k] = FMA(vc[i], row[k], c[k]);
            d[k] = FMA(vd[i], row[k], d[k]);
        }
    }
    for (size_t r = 0; r < GROUP; r++)
        for (size_t l = 0; l < GROUP; l++)
            t[r][l] = transposed ? factor[l * GROUP + r] : factor[r * GROUP + l];
    for (size_t k = 0; k < COLUMNS; k++) {
        const REAL ak = a[k], bk = b[k], ck = c[k], dk = d[k];

        a[k] = t[0][0] * ak + t[0][1] * bk + t[0][2] * ck + t[0][3] * dk;
        b[k] = t[1][0] * ak + t[1][1] * bk + t[1][2] * ck + t[1][3] * dk;
        c[k] = t[2][0] * ak + t[2][1] * bk + t[2][2] * ck + t[2][3] * dk;
        d[k] = t[3][0] * ak + t[3][1] * bk + t[3][2] * ck + t[3][3] * dk;
    }
    for (size_t i = 0; i < rows; i++) {
        REAL *restrict row = q + i * COLUMNS;

        for (size_t k = 0; k < COLUMNS; k++)
            row[k] = FMA(va[i], a[k], FMA(vb[i], b[k], FMA(vc[i], c[k], FMA(vd[i], d[k], row[k]))));
    }
}

static void NAME(apply)(const REAL *v, size_t count, size_t length, size_t stride,
                        const REAL *factors, int transposed, REAL *q, size_t blocks,
                        const size_t *stops) {
    const environment callers = environment_enter();

    assert(count % GROUP == 0);
    for (size_t turn = 0; turn < count; turn += GROUP) {
        const size_t start = transposed ? turn : count - GROUP - turn;

        for (size_t block = 0; block < blocks; block++)
            if (start < stops[block]) NAME(apply_group)
        (v + start * stride + start, stride, factors + start * GROUP, length - start, transposed,
         q + (block * length + start) * COLUMNS);
    }
    environment_leave(callers);
}
