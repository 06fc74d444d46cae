"""A mail server for tests, with aiosmtpd. Prints its port, then each e-mail that it takes as a line of JSON.

python smtp_receiver.py plain|starttls|tls CERTIFICATE KEY USER PASSWORD FAILURES

It refuses the first FAILURES e-mails for the time being, and wants the user's name and password except for `plain`.
"""

import asyncio
import json
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult


class Receiver:
    def __init__(self, failures):
        self.failures = failures

    async def handle_DATA(self, server, session, envelope):
        if self.failures > 0:
            self.failures -= 1
            return "451 try again later"
        email = message_from_bytes(envelope.content, policy=policy.default)
        print(
            json.dumps(
                {
                    "sender": envelope.mail_from,
                    "to": envelope.rcpt_tos,
                    "user": session.auth_data,
                    "tls": session.ssl is not None,
                    "subject": email["subject"],
                    "from": email["from"],
                    "id": email["message-id"],
                    "text": email.get_content(),
                }
            ),
            flush=True,
        )
        return "250 taken"


async def main(mode, certificate, key, user, password, failures):
    context = None
    if mode != "plain":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

    def check(server, session, envelope, mechanism, data):
        right = data.login.decode() == user and data.password.decode() == password
        return AuthResult(success=right, handled=False, auth_data=data.login.decode())

    receiver = Receiver(int(failures))
    loop = asyncio.get_running_loop()

    def connected():
        return SMTP(
            receiver,
            hostname="localhost",
            loop=loop,
            authenticator=check,
            auth_required=mode != "plain",
            auth_require_tls=mode == "starttls",
            require_starttls=mode == "starttls",
            tls_context=context if mode == "starttls" else None,
        )

    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=context if mode == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
