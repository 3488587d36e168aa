"""Puts the product together: the only place that reads the settings and chooses adapters.

Everyone above asks here for what they need and gets values; each is built when first asked for,
so that a command that only prints something opens nothing.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr
from sqlalchemy import Engine, text

from app import embedded_postgres
from app.database import Begin, as_application, begin_on, check_ready, make_engine
from app.service import SHIPPED, as_document, load_services
from app.settings import LocalPlace, Settings, key_bytes, load_settings, local_place
from integrations.cipher import BlindIndex, Cipher
from integrations.clinic import fhir as clinic_fhir
from integrations.courier import files as post_files
from integrations.lab import hl7_words
from integrations.lab import reader as lab_files
from integrations.lab import requests as lab_requests
from integrations.lab.draft import draft_map
from integrations.orders import order_reader
from integrations.ports import (
    ArrivalQueue,
    ClinicBell,
    FileStore,
    LabDrop,
    LabelPrinter,
    LabLine,
    MailSender,
    Pace,
    ParcelNews,
    ParcelTracker,
    PostageSeller,
    TextSender,
)
from integrations.texts.catalogue import Catalogue
from models.actions.order import Intake
from models.actions.service import keep_service_version
from models.rules.errors import Code, ServiceError
from models.rules.lab import LabMap
from models.rules.postage import PostWay
from models.rules.referral import Handover
from models.rules.service import Service, ServiceInForce, Services
from models.rules.text import TextValues
from models.rules.vocabulary import Language, Specimen

if TYPE_CHECKING:
    from integrations.lab.mllp import MllpListener

__all__ = [
    "Clock",
    "LocalPlace",
    "StaffWeb",
    "Wiring",
    "clinic_fhir",
    "connect",
    "draft_map",
    "hl7_words",
    "lab_files",
    "lab_requests",
    "local_place",
    "post_files",
    "wiring",
]

Clock = Callable[[], datetime]
"""Service time (ruling 12): an aware UTC instant, which a demo's database may have shifted forward."""

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
"""What people read."""

DATABASE = "kitpost"
"""The product's database on the embedded server."""


@dataclass(frozen=True, slots=True)
class StaffWeb:
    """What the web application is told: its own address, the session's secret, and where staff sign in."""

    public_base_url: str
    session_secret: str = field(repr=False)
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class Wiring:
    """One installation, put together from its settings."""

    settings: Settings

    @cached_property
    def owner_url(self) -> str:
        """The database as its owner: for migrations. Raises ServiceError(SETTINGS) where it is not known."""
        if self.settings.owner_database_url:
            return self.settings.owner_database_url
        if self.settings.database_url is None:
            admin = embedded_postgres.ensure(self.settings.state_dir, binaries=self.settings.pg_bin)
            return embedded_postgres.create_database(admin, DATABASE)
        raise ServiceError(
            Code.SETTINGS,
            "Set KITPOST_OWNER_DATABASE_URL to the database as its owner: kitpost_app can't change tables.",
        )

    @cached_property
    def engine(self) -> Engine:
        """The database as the product's own role. Opens no connection by itself."""
        return make_engine(self.settings.database_url or as_application(self.owner_url))

    @cached_property
    def begin(self) -> Begin:
        """Opens one transaction."""
        return begin_on(self.engine)

    @cached_property
    def clock(self) -> Clock:
        """Service time. Only a demo asks the database how far it is shifted."""
        if self.settings.environment == "production":
            return _machine_time
        return lambda: _machine_time() + _shift(self.engine)

    @cached_property
    def cipher(self) -> Cipher:
        """Encrypts personal columns."""
        keys = {key_id: key_bytes(key) for key_id, key in self.settings.data_keys.items()}
        return Cipher(keys, self.settings.data_key_current)

    @cached_property
    def index(self) -> BlindIndex:
        """Finds equal personal values."""
        keys = {version: key_bytes(key) for version, key in self.settings.index_keys.items()}
        return BlindIndex(keys, self.settings.index_key_current)

    @cached_property
    def store(self) -> FileStore:
        """Files in S3."""
        from integrations.store import S3FileStore

        return S3FileStore(self._aws("s3", self.settings.s3_endpoint), self.settings.s3_bucket)

    @cached_property
    def arrivals(self) -> ArrivalQueue:
        """What tells of files that landed."""
        from integrations.store import SqsArrivalQueue

        return SqsArrivalQueue(self._aws("sqs", self.settings.sqs_endpoint), self.settings.sqs_queue_url)

    @cached_property
    def services(self) -> Services:
        """Every council's choices, each stored as the version that decisions cite.

        None is in force before every text, with its own name and phone, may leave (ServiceError TEMPLATE).
        """
        loaded = load_services(self.settings.service_dir or SHIPPED)
        for service in loaded.values():
            self.catalogue.check_service(service)
        with self.begin() as session:
            return {
                service_id: ServiceInForce(service, keep_service_version(session, service_id, as_document(service)))
                for service_id, service in loaded.items()
            }

    @cached_property
    def labels(self) -> LabelPrinter:
        """What draws kit packs and reads them back."""
        from integrations.labels.press import LabelPress

        return LabelPress()

    @cached_property
    def letters(self) -> Callable[..., bytes]:
        """What draws a letter from what it says, by name."""
        from integrations.letters.draw import Letter, draw_letter

        return lambda **says: draw_letter(Letter(**says))

    @property
    def referral_letters(self) -> Callable[[Handover, date], bytes]:
        """What draws the letter to a clinic about one case, on a day."""
        from integrations.letters.referral import draw_referral

        return draw_referral

    @cached_property
    def mail(self) -> MailSender | None:
        """Who takes e-mails to staff on duty. Raises ServiceError(SETTINGS) for mailboxes without a mail server."""
        from integrations.mail import SmtpPost

        chosen = self.settings
        if chosen.smtp_host:
            return SmtpPost(
                chosen.smtp_host,
                chosen.smtp_port,
                sender=chosen.smtp_sender,
                user=chosen.smtp_user,
                password=_revealed(chosen.smtp_password) or "",
                over_tls=chosen.smtp_over_tls,
            )
        for service_id, in_force in self.services.items():
            if in_force.service.clinic.duty_mails:
                raise ServiceError(
                    Code.SETTINGS, f"KITPOST_SMTP_HOST is not set, and {service_id} has mailboxes in clinic.duty_mails."
                )
        return None

    @cached_property
    def courier(self) -> ParcelTracker:
        """Whom we ask where parcels are."""
        from integrations.courier.royal_mail import RoyalMailTracker

        return RoyalMailTracker(
            str(self.settings.courier_base_url),
            self.settings.courier_client_id,
            self.settings.courier_client_secret.get_secret_value(),
        )

    @cached_property
    def courier_news(self) -> ParcelNews | None:
        """What reads a courier's own events; None where no secret was agreed."""
        from integrations.courier.webhook import CourierWebhook

        chosen = (self.settings.courier_webhook_secret, self.settings.courier_webhook_secret_secondary)
        secrets = [secret for secret in map(_revealed, chosen) if secret]
        return CourierWebhook(secrets) if secrets else None

    @cached_property
    def postage_sellers(self) -> Mapping[str, PostageSeller]:
        """Who sells each service's postage. Raises ServiceError(SETTINGS) where one that buys there has no key."""
        from integrations.courier.click_and_drop import ClickAndDrop

        sellers: dict[str, PostageSeller] = {}
        for service_id, in_force in self.services.items():
            if in_force.service.post.way is not PostWay.CLICK_AND_DROP:
                continue
            key = self.settings.click_and_drop_keys.get(service_id)
            if key is None:
                raise ServiceError(
                    Code.SETTINGS, f"KITPOST_CLICK_AND_DROP_KEYS has no key for {service_id}, which buys postage there."
                )
            sellers[service_id] = ClickAndDrop(str(self.settings.click_and_drop_base_url), key.get_secret_value())
        return sellers

    @cached_property
    def clinic_bells(self) -> Mapping[tuple[str, str], ClinicBell]:
        """How each clinic's system is told that a referral waits, by service and clinic.

        Raises ServiceError(SETTINGS) for a clinic that is in no council's file.
        """
        from integrations.clinic.bell import SignedBell

        self._check_clinics("KITPOST_CLINIC_BELLS", self.settings.clinic_bells)
        return {
            (service_id, clinic): SignedBell(str(bell.url), bell.secret.get_secret_value())
            for name, bell in self.settings.clinic_bells.items()
            for service_id, _, clinic in [name.partition("/")]
        }

    @property
    def clinic_keys(self) -> dict[str, str]:
        """The key of each clinic that fetches referrals, by "service/clinic". Raises as `clinic_bells` does."""
        self._check_clinics("KITPOST_CLINIC_KEYS", self.settings.clinic_keys)
        return {name: key.get_secret_value() for name, key in self.settings.clinic_keys.items()}

    def _check_clinics(self, variable: str, names: Iterable[str]) -> None:
        for name in names:
            service_id, _, clinic = name.partition("/")
            in_force = self.services.get(service_id)
            if in_force is None or in_force.service.clinic_named(clinic) is None:
                raise ServiceError(Code.SETTINGS, f"{variable} names {name}, but no council's file has that clinic.")

    @cached_property
    def lab_maps(self) -> Mapping[str, LabMap]:
        """Every laboratory's map, checked whole, by lab."""
        from app.service.labs import FOLDER, load_lab_maps

        return load_lab_maps(self.settings.labs_dir or FOLDER)

    @cached_property
    def lab_keys(self) -> dict[str, str]:
        """The key of each laboratory that sends over HTTP, by "service/LAB"."""
        return {name: key.get_secret_value() for name, key in self.settings.lab_keys.items()}

    @property
    def sftp_labs(self) -> Sequence[str]:
        """Laboratories whose SFTP servers files are fetched from. Raises ServiceError(SETTINGS) for no lab of ours."""
        if unknown := sorted(set(self.settings.sftp_labs) - set(self.lab_maps)):
            raise ServiceError(Code.SETTINGS, f"KITPOST_SFTP_LABS names {unknown[0]}, of which there is no lab map.")
        return list(self.settings.sftp_labs)

    def open_drop(self, lab: str) -> AbstractAsyncContextManager[LabDrop]:
        """A laboratory's drop directory. Entering it raises ServiceError(NOT_NOW) where it can't be used."""
        from integrations.lab.sftp import SftpServer, open_drop

        found = self.settings.sftp_labs[lab]
        return open_drop(
            SftpServer(
                found.host, found.port, found.user, found.key, found.host_key, found.folder, renames=found.renames
            )
        )

    def line_to(self, lab: str) -> LabLine:
        """A connection to a laboratory's own listener. Raises ServiceError(SETTINGS) where none is set."""
        from integrations.lab.mllp import MllpAddress, MllpSender

        found = self.settings.mllp_labs.get(lab)
        if found is None:
            raise ServiceError(Code.SETTINGS, f"KITPOST_MLLP_LABS says nothing of {lab}, which is told over MLLP.")
        return MllpSender(MllpAddress(found.host, found.port, found.ca, found.certificate, found.key))

    def mllp_listener(
        self, take: Callable[[str, bytes], bytes], too_long: Callable[[str, bytes], bytes]
    ) -> "MllpListener":
        """What listens for laboratories' messages. Raises ServiceError(SETTINGS) for peers that are no lab of ours."""
        from integrations.lab.mllp import ListenerChoices, MllpListener

        chosen = self.settings
        if unknown := sorted(set(chosen.mllp_peers.values()) - set(self.lab_maps)):
            raise ServiceError(Code.SETTINGS, f"KITPOST_MLLP_PEERS names {unknown[0]}, of which there is no lab map.")
        if not chosen.mllp_peers:
            raise ServiceError(Code.SETTINGS, "KITPOST_MLLP_PEERS names nobody who may speak: there is nothing to do.")
        return MllpListener(
            ListenerChoices(
                host=chosen.mllp_host,
                port=chosen.mllp_port,
                peers=chosen.mllp_peers,
                certificate=chosen.mllp_certificate,
                key=chosen.mllp_key,
                clients_ca=chosen.mllp_clients_ca,
                longest_frame_bytes=chosen.mllp_longest_message_bytes,
            ),
            take,
            too_long,
        )

    @property
    def allow_test_numbers(self) -> bool:
        """Whether 07700 900000 to 900999, which belong to nobody, may be ordered with."""
        return self.settings.environment == "demo"

    @property
    def text_provider(self) -> str:
        """The provider of texts that the settings name; a person may choose another (models.actions.text_switch)."""
        return self.settings.text_provider

    @cached_property
    def senders(self) -> Mapping[str, TextSender]:
        """Every provider of texts that there are credentials for, by name."""
        made = (self._twilio(), self._govuk_notify())
        return {sender.name: sender for sender in made if sender is not None}

    def _twilio(self) -> TextSender | None:
        from integrations.texts.twilio import TwilioSender

        chosen = self.settings
        if not (chosen.twilio_account_sid and chosen.twilio_auth_token and chosen.twilio_messaging_service_sid):
            return None
        return TwilioSender(
            account_sid=chosen.twilio_account_sid,
            auth_token=chosen.twilio_auth_token.get_secret_value(),
            messaging_service_sid=chosen.twilio_messaging_service_sid,
            public_base_url=str(chosen.public_base_url),
            base_url=str(chosen.twilio_base_url),
            secondary_auth_token=_revealed(chosen.twilio_auth_token_secondary),
            timeout_seconds=chosen.twilio_timeout_seconds,
            pace=Pace(chosen.twilio_at_once, chosen.twilio_per_second),
        )

    def _govuk_notify(self) -> TextSender | None:
        from integrations.texts.govuk_notify import GovukNotifySender

        chosen = self.settings
        if not (chosen.notify_api_key and chosen.notify_template_id and chosen.notify_callback_token):
            return None
        return GovukNotifySender(
            api_key=chosen.notify_api_key.get_secret_value(),
            template_id=chosen.notify_template_id,
            callback_token=chosen.notify_callback_token.get_secret_value(),
            base_url=str(chosen.notify_base_url),
            sender_id=chosen.notify_sender_id,
            secondary_callback_token=_revealed(chosen.notify_callback_token_secondary),
            timeout_seconds=chosen.notify_timeout_seconds,
            pace=Pace(chosen.notify_at_once, chosen.notify_per_second),
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every text there is, checked whole. Raises ServiceError(TEMPLATE) for a missing variant."""
        from integrations.texts.catalogue import load_catalogue

        return load_catalogue(TEMPLATES / "texts" / "catalogue.toml")

    def text_sheet(self, service: Service, examples: Sequence[TextValues]) -> tuple[str, bytes]:
        """Every text of a service as one HTML page, and as a PDF to sign."""
        from integrations.texts.sheet import draw_page, draw_paper, samples

        made = samples(self.catalogue, service, examples)
        return draw_page(self.catalogue, service, made), draw_paper(self.catalogue, service, made)

    @cached_property
    def channel_keys(self) -> dict[str, str]:
        """The key of each ordering channel, by "service/channel"."""
        return {name: key.get_secret_value() for name, key in self.settings.api_keys.items()}

    @cached_property
    def intake(self) -> Intake:
        """What taking orders needs."""
        from integrations.address import Authorities

        return Intake(
            services=self.services,
            cipher=self.cipher,
            indexes=self.index,
            read=order_reader(allow_test_numbers=self.allow_test_numbers),
            authority_of=Authorities().authority_of,
        )

    @cached_property
    def staff_web(self) -> StaffWeb:
        """What the web application is told."""
        return StaffWeb(
            public_base_url=str(self.settings.public_base_url),
            session_secret=self.settings.session_secret.get_secret_value(),
            issuer=str(self.settings.oidc_issuer),
            client_id=self.settings.oidc_client_id,
            client_secret=self.settings.oidc_client_secret.get_secret_value(),
        )

    def _aws(self, service: str, endpoint: str | None) -> Any:
        import boto3

        from integrations.store import CLIENT

        secret = self.settings.s3_secret_key
        return boto3.Session().client(  # type: ignore[call-overload]
            service,
            endpoint_url=endpoint,
            region_name=self.settings.s3_region,
            aws_access_key_id=self.settings.s3_access_key,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=CLIENT,
        )


@cache
def wiring() -> Wiring:
    """The installation of this process. Raises ServiceError(SETTINGS) with what to put right."""
    settings = load_settings()
    logging.getLogger("kitpost").setLevel(settings.log_level)
    return Wiring(settings)


def connect() -> Wiring:
    """The same, once its database answers and has today's tables.

    Raises ServiceError(SETTINGS | DATABASE_DOWN | DATABASE_NOT_READY), each with one sentence.
    """
    ready = wiring()
    check_ready(ready.engine)
    return ready


def draw_leaflet(service: Service, samples: Sequence[Specimen], language: Language, *, large: bool) -> bytes:
    """The leaflet for a box with these samples, as a PDF. Needs no settings."""
    from integrations.labels import leaflet

    return leaflet.draw_leaflet(samples, language, phone=service.phone, phone_hours=service.phone_hours, large=large)


def preview_artwork(service: Service) -> Mapping[str, tuple[bytes, bytes]]:
    """All artwork for invented kits by name: PDF and PNG. Needs no settings."""
    from integrations.labels.preview import preview

    return preview(service)


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _machine_time() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the one place where service time begins


def _shift(engine: Engine) -> timedelta:
    # One question, which needs no transaction's two round trips: it is asked for every scan and request.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = connection.execute(text("SELECT service_time_offset_seconds FROM installation WHERE demo")).scalar()
    return timedelta(seconds=found or 0)
