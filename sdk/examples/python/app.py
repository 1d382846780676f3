"""Three samples in one program: a greeter that counts, an update that never repeats a done part, and a payment.

python -m hypercorn --bind 127.0.0.1:9080 app:app
"""

import restate
from greeter import greeter
from payment import payment
from profile_updater import profile_updater

app = restate.app([greeter, profile_updater, payment])
