"""The coefficients of csrc/coefficients.h, as compile-time constants."""

import triton.language as tl

import winit_fast._core as _core


class Table(tl.constexpr):
    """A tuple of constants, of which Triton's interpreter, too, can ask the length."""

    def __len__(self) -> int:
        return len(self.value)


_TABLES = {name: Table(values) for name, values in _core.coefficients().items()}

LN2_F32, LN2_F64 = _TABLES["ln2_f32"], _TABLES["ln2_f64"]
MINUS_LOG_F32, MINUS_LOG_F64 = _TABLES["minus_log_f32"], _TABLES["minus_log_f64"]
MINUS_TWO_LOG_F32, MINUS_TWO_LOG_F64 = _TABLES["minus_two_log_f32"], _TABLES["minus_two_log_f64"]
SIN_HEAD_F32, SIN_HEAD_F64 = _TABLES["sin_head_f32"], _TABLES["sin_head_f64"]
SIN_F32, SIN_F64 = _TABLES["sin_f32"], _TABLES["sin_f64"]
COS_F32, COS_F64 = _TABLES["cos_f32"], _TABLES["cos_f64"]
ROOT_HEAD_F32, ROOT_F32 = _TABLES["quantile_root_head_f32"], _TABLES["quantile_root_f32"]
QUANTILE_HEAD_F32, QUANTILE_HEAD_F64 = _TABLES["quantile_head_f32"], _TABLES["quantile_head_f64"]
QUANTILE_F32, QUANTILE_F64 = _TABLES["quantile_f32"], _TABLES["quantile_f64"]
