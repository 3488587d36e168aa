"""Where the environment names a proxy or certificates, calls go by them: read once, and by the same rules as ever."""

import pytest
import requests

from integrations.texts.connection import read_environment_once

PROVIDER = "https://api.twilio.com"


@pytest.fixture
def session(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with requests.Session() as session:
        yield session


def ways_out(session):
    """Proxies and certificates for one call, as the client asks its session for them."""
    settings = session.merge_environment_settings(f"{PROVIDER}/Messages.json", {}, None, None, None)
    return settings["proxies"], settings["verify"]


def test_a_proxy_of_the_environment_is_gone_through(session, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    read_environment_once(session, PROVIDER)
    assert ways_out(session)[0]["https"] == "http://proxy.invalid:3128"


def test_a_provider_that_no_proxy_names_is_called_directly(session, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", "api.twilio.com")
    read_environment_once(session, PROVIDER)
    assert not ways_out(session)[0]


def test_certificates_of_the_environment_are_trusted(session, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "council-ca.pem")
    read_environment_once(session, PROVIDER)
    assert ways_out(session)[1] == "council-ca.pem"


def test_certificates_are_checked_where_the_environment_is_silent(session):
    read_environment_once(session, PROVIDER)
    assert ways_out(session) == ({}, True)
