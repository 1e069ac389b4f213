"""A mail server that keeps nothing: prints its port, then each mail, as lines of JSON.

Mail to `gone@` is refused for good, mail to `later@` twice for now. Called with a certificate, its
key, a name and a password, it takes mail after STARTTLS and that login only.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


def say(**words):
    print(json.dumps(words), flush=True)


class Sink:
    def __init__(self):
        self.tries = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone@"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("later@") and self.tries < 2:
            self.tries += 1
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say(
            is_encrypted=session.ssl is not None,
            login=session.auth_data,
            to=envelope.rcpt_tos,
            sender=envelope.mail_from,
            subject=mail["subject"],
            kind=mail.get_content_type(),
            text=mail.get_content(),
        )
        return "250 OK"


async def main():
    sink, options = Sink(), {}
    if len(sys.argv) == 5:
        certificate, key, name, password = sys.argv[1:]
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

        def authenticate(server, session, envelope, mechanism, login):
            is_right = (login.login, login.password) == (name.encode(), password.encode())
            return AuthResult(success=is_right, auth_data=name)

        options = {
            "tls_context": context,
            "require_starttls": True,
            "auth_required": True,
            "authenticator": authenticate,
        }
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(sink, **options), "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
