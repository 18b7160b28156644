# SPDX-License-Identifier: Apache-2.0


def half_written(values):
    """Return the sum of the values."""
    return sum(values
