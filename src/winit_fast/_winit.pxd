# csrc/winit.h, as Cython sees it.
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "winit.h" nogil:
    enum:
        WINIT_F64
        WINIT_F32
        WINIT_F16
        WINIT_BF16
        WINIT_E4M3FN
        WINIT_E5M2
        WINIT_MAX_AXES
        WINIT_MAX_LANES

    ctypedef struct winit_stream:
        uint64_t seed
        uint64_t stream

    ctypedef struct winit_distribution:
        int kind
        int type

    ctypedef struct winit_words:
        winit_stream stream

    ctypedef struct winit_window:
        int flip
        uint64_t kappa
        double tail_step
        double[2] tail_start
        double t_step
        double t_step_rest
        double[2] t_start
        int t_exponent
        int tail_exponent

    size_t winit_type_size(int type)
    void winit_set_bits(winit_distribution *d, int type)
    int winit_set_uniform(winit_distribution *d, int type, double low, double high)
    int winit_set_normal(winit_distribution *d, int type, double loc, double scale)
    int winit_set_truncated(winit_distribution *d, int type, double loc, double scale,
                            double low, double high, const winit_window *window)
    void winit_fill(const winit_distribution *d, const winit_stream *s, void *dst,
                    uint64_t index, int axes, const int64_t *shape,
                    const int64_t *index_strides, const int64_t *byte_strides, int streaming)
    void winit_philox(const uint32_t *counter, const uint32_t *key, uint32_t *words)
    void winit_words_seek(winit_words *w, const winit_stream *s, uint64_t position)
    uint64_t winit_words_position(const winit_words *w)
    uint32_t winit_words_next_u32(void *words)
    uint64_t winit_words_next_u64(void *words)
    double winit_words_next_double(void *words)
    void winit_transform_words(const winit_distribution *d, const uint32_t *words, void *dst,
                               size_t count)
    void winit_log_f32(const float *x, float *y, size_t n)
    void winit_log_f64(const double *x, double *y, size_t n)
    void winit_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n)
    void winit_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n)
    const char *winit_isa()
    const char *winit_isa_supported(int k)
    int winit_isa_choose(const char *name)
