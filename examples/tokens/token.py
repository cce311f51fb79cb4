# pip install PyJWT; python3 token.py USER PATTERN...
import os
import sys
import time

import jwt

user, *patterns = sys.argv[1:]
claims = {
    "sub": user,
    "exp": int(time.time()) + 3600,
    "ringside": {"subscribe": patterns},
}
print(jwt.encode(claims, os.environ["JWT_SECRET"], algorithm="HS256"))
