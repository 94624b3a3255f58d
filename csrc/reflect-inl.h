/*
 * The arithmetic of householder.h for one type: REAL, and NAME(f) to name a function for it.
 *
 * Sums have LANES interleaved partial sums, joined by halving: an order that every vector width can
 * follow. Products and sums are rounded apart, never fused, so that they cost the same without fma.
 */

#define LANES 16

/* Sum of squares, in double: exact products for float, and no overflow for what a normal can be. */
static double NAME(squares)(const REAL *x, size_t n)
{
    double sums[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sums[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (size_t lane = 0; i + lane < n; lane++)
        sums[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

/*
 * v = x / pivot with pivot = x_0 + s |x|, s the sign of x_0, so that nothing cancels; then v_0 = 1 and
 * tau = 2 / v'v (Golub & Van Loan, section 5.1). tau is that of the *rounded* 1 / pivot: so what the
 * rounding leaves of H'H - I is only that of the single elements, which are independent.
 *
 * H x = -s |x| e_0 = R_jj e_0, so sign = -s is the sign of R_jj in the QR factors of the Gaussian
 * matrix that these reflectors triangularise; see orthogonal.md. A vector of one element is
 * no exception: v = 1, tau = 2, H = -1, and H sign = s. A zero vector, which has probability 2^-25
 * where there is but one element left, counts as positive.
 */
static void NAME(reflector)(REAL *x, size_t n, REAL *tau, REAL *sign)
{
    const double tail = NAME(squares)(x + 1, n - 1);
    const double head = (double)x[0];
    const double norm = sqrt(tail + head * head);
    const double s = head < 0 ? -1.0 : 1.0;
    const REAL inverse = norm > 0 ? (REAL)(1.0 / (head + s * norm)) : (REAL)0;

    x[0] = 1;
    for (size_t i = 1; i < n; i++)
        x[i] *= inverse;
    *tau = (REAL)(2.0 / (1.0 + ((double)inverse * (double)inverse) * tail));
    *sign = (REAL)-s;
}

static void NAME(reflectors)(REAL *v, size_t rows, size_t length, size_t stride, REAL *tau,
                             REAL *sign)
{
    const environment callers = environment_enter();

    assert(rows <= length && length <= stride);
    for (size_t r = 0; r < rows; r++) {
        memset(v + r * stride, 0, r * sizeof *v);
        NAME(reflector)(v + r * stride + r, length - r, tau + r, sign + r);
    }
    environment_leave(callers);
}

/*
 * T^-1 + T^-T = V'V (Puglisi 1992; Joffrain et al. 2006), so T^-1 has the strict upper triangle of V'V
 * and 1 / tau on its diagonal. Its inverse by rows from the last, which makes all inner loops run
 * along rows: N_i = -tau_i (e_i + sum over l > i of (V'V)_il N_l) with N = -T.
 */
static void NAME(factor)(const REAL *products, size_t products_stride, const REAL *tau, size_t n,
                         REAL *factor, size_t factor_stride)
{
    const environment callers = environment_enter();

    for (size_t i = n; i-- > 0;) {
        REAL *row = factor + i * factor_stride;

        memset(row, 0, n * sizeof *row);
        for (size_t l = i + 1; l < n; l++) {
            const REAL product = products[i * products_stride + l];
            const REAL *lower = factor + l * factor_stride;

            for (size_t c = l; c < n; c++)
                row[c] += product * lower[c];
        }
        row[i] = 1;
        for (size_t c = i; c < n; c++)
            row[c] *= -tau[i];
    }
    environment_leave(callers);
}

/*
 * Backward accumulation: before H_j is applied, only rows and columns after j differ from the
 * identity, so only rows from j on are touched, and only reflectors up to the last column count.
 */
static void NAME(columns)(const REAL *v, size_t stride, const REAL *tau, const REAL *sign,
                          size_t rows, size_t n, size_t first, REAL *q)
{
    const size_t last = first + WINIT_COLUMNS < n ? first + WINIT_COLUMNS : n;
    const environment callers = environment_enter();

    assert(first < n && n <= rows);
    memset(q, 0, rows * WINIT_COLUMNS * sizeof *q);
    for (size_t j = last; j-- > 0;) {
        const REAL *restrict vj = v + j * stride;
        REAL even[WINIT_COLUMNS], odd[WINIT_COLUMNS] = {0};
        REAL *restrict row = q + j * WINIT_COLUMNS;
        size_t i;

        if (j >= first)
            row[j - first] = sign[j];
        for (size_t c = 0; c < WINIT_COLUMNS; c++)
            even[c] = row[c];
        for (i = j + 1; i + 2 <= rows; i += 2) {
            const REAL *restrict two = q + i * WINIT_COLUMNS;

            for (size_t c = 0; c < WINIT_COLUMNS; c++) {
                even[c] += vj[i] * two[c];
                odd[c] += vj[i + 1] * two[WINIT_COLUMNS + c];
            }
        }
        for (; i < rows; i++)
            for (size_t c = 0; c < WINIT_COLUMNS; c++)
                even[c] += vj[i] * q[i * WINIT_COLUMNS + c];
        for (size_t c = 0; c < WINIT_COLUMNS; c++) {
            even[c] = -tau[j] * (even[c] + odd[c]);
            row[c] += even[c];
        }
        for (i = j + 1; i < rows; i++)
            for (size_t c = 0; c < WINIT_COLUMNS; c++)
                q[i * WINIT_COLUMNS + c] += vj[i] * even[c];
    }
    environment_leave(callers);
}

#undef LANES
