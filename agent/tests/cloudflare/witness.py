"""Reads with Cloudflare's own client what is at an address: `cidr<TAB>mode<TAB>text`, one a line."""

import sys

from cloudflare import Cloudflare

base, token, kind, scope, *rest = sys.argv[1:]
client = Cloudflare(base_url=base, api_token=token, max_retries=0)

if kind == "list":
    for item in client.rules.lists.items.list(rest[0], account_id=scope):
        print(item.ip, "item", item.comment, sep="\t")
else:
    whose = {"account_id": scope} if kind == "account" else {"zone_id": scope}
    for rule in client.firewall.access_rules.list(**whose):
        if rule.configuration.target != "country":
            print(rule.configuration.value, rule.mode, rule.notes, sep="\t")
