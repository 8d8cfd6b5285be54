"""How many decimals each currency's smallest unit has (ISO 4217, list one)."""

DECIMALS_USUAL = 2
DECIMALS: dict[str, int] = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI"),
            *("VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def decimals(currency: str) -> int:
    """Return the exponent of a currency's minor unit: 2 for all that ISO 4217 does not except."""
    return DECIMALS.get(currency, DECIMALS_USUAL)
