# Our pair with its access log, of failures only: bench/run weft weft-log shows what that costs.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/weft.sh"
WEFT_ACCESS_LOG=errors
